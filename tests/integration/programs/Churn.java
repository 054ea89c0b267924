// SPDX-License-Identifier: LGPL-2.1-or-later
// 200 threads keep a heap of 1 GiB in motion; every block carries the sum of what is in it.
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;

public class Churn {
	static final int THREADS = 200, BLOCKS = 60, LONGS = 5500; // about 0.5 GiB alive
	static final AtomicReference<Throwable> failure = new AtomicReference<>();
	static volatile boolean over;

	static long[] block(Random random) {
		long[] block = new long[LONGS];
		for (int i = 1; i < LONGS; i++)
			block[0] += block[i] = random.nextLong();
		return block;
	}

	static void verify(long[] block) {
		long sum = 0;
		for (int i = 1; i < LONGS; i++)
			sum += block[i];
		if (sum != block[0])
			throw new IllegalStateException("a block of memory has changed");
	}

	static void work(int number, CountDownLatch filled) {
		try {
			Random random = new Random(number);
			long[][] blocks = new long[BLOCKS][];
			for (int i = 0; i < BLOCKS; i++)
				blocks[i] = block(random);
			filled.countDown();
			while (!over) {
				int at = random.nextInt(BLOCKS);
				verify(blocks[at]);
				blocks[at] = block(random);
				// Rarely enough that the two hundred leave processors to whoever checkpoints them.
				Thread.sleep(100);
			}
			for (long[] block : blocks)
				verify(block);
		} catch (Throwable problem) {
			failure.compareAndSet(null, problem);
		}
	}

	static void say(Path status, String text) throws Exception {
		Files.writeString(status, text + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
	}

	public static void main(String[] arguments) throws Exception {
		Path status = Path.of(arguments[0]), go = Path.of(arguments[0] + ".go");
		CountDownLatch filled = new CountDownLatch(THREADS);
		Thread[] threads = new Thread[THREADS];
		for (int i = 0; i < THREADS; i++) {
			int number = i;
			threads[i] = new Thread(() -> work(number, filled));
			threads[i].start();
		}
		filled.await();
		say(status, "ready");
		while (!Files.exists(go) && failure.get() == null)
			Thread.sleep(10);
		over = true;
		for (Thread thread : threads)
			thread.join();
		say(status, failure.get() == null ? "ok" : "FAIL " + failure.get());
	}
}
