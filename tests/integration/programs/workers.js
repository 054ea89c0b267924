// SPDX-License-Identifier: LGPL-2.1-or-later
// Worker threads that send numbers in order, timers that keep theirs, memory that is churned.
'use strict';
const fs = require('fs');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

function check(good, text) {
	if (!good) throw new Error(text);
}

function worker() {
	let sent = 0;
	setInterval(() => {
		const garbage = Array.from({ length: 2000 }, (_, i) => `${workerData}-${i}`);
		parentPort.postMessage({ from: workerData, number: sent++, text: garbage[1999] });
	}, 3);
}

function main() {
	const status = process.argv[2];
	const next = [0, 0, 0];
	let ticks = 0;
	let ready = false;
	const say = (text) => fs.appendFileSync(status, text + '\n');

	process.on('uncaughtException', (error) => {
		say('FAIL ' + error.stack.replace(/\n/g, ' | '));
		process.exit(1);
	});
	for (let i = 0; i < next.length; i++) {
		new Worker(__filename, { workerData: i }).on('message', (message) => {
			check(message.number === next[i], `worker ${i}: ${message.number} after ${next[i]}`);
			check(message.text === `${i}-1999`, `worker ${i} says ${message.text}`);
			next[i]++;
		}).on('error', (error) => { throw error; });
	}
	const timer = setInterval(() => { ticks++; }, 10);
	const look = setInterval(() => {
		if (!ready && ticks >= 5 && next.every((n) => n > 0)) {
			ready = true;
			say('ready');
		}
		if (!fs.existsSync(status + '.go')) return;
		check(next.every((n) => n > 0), `some worker is silent: ${next}`);
		check(ticks > 5, 'no tick');
		clearInterval(timer);
		clearInterval(look);
		say('ok');
		process.exit(0);
	}, 10);
}

if (isMainThread) main(); else worker();
