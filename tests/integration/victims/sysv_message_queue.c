/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System V message queues: ids, keys, owners, limits, messages in order, and who waits for them. */
#include <sys/ipc.h>
#include <sys/msg.h>

#include "victim.h"

enum { KEY = 0x4d534731, LONG = 3000, LIMIT = 9000 };

struct message {
	long type;
	char text[LONG];
};

static int keyed, others, empty, awaited, full;
static pid_t sender, receiver, waiting, blocked;
static uint32_t *arrived;

static void put(int id, long type, const char *text, size_t len)
{
	struct message message = {.type = type};

	memcpy(message.text, text, len);
	must(msgsnd(id, &message, len, 0));
}

static void take(int id, long wanted, long type, const char *text, size_t len)
{
	struct message message;
	ssize_t got = msgrcv(id, &message, sizeof(message.text), wanted, IPC_NOWAIT);

	check(got == (ssize_t)len, "%zd bytes, not %zu: %s", got, len, strerror(errno));
	check(message.type == type && !memcmp(message.text, text, len), "type %ld: %.20s",
	      message.type, message.text);
}

/* The last to send and to receive, and still there afterwards. */
static void send_last(void *argument)
{
	(void)argument;
	put(keyed, 2, "second", 6);
	victim_arrive(arrived);
	victim_wait();
}

static void receive_last(void *argument)
{
	(void)argument;
	take(keyed, 7, 7, "out of turn", 11);
	victim_arrive(arrived);
	victim_wait();
}

/* Nothing of this type is there until the test goes on. */
static void wait_for_message(void *argument)
{
	struct message message;

	(void)argument;
	victim_arrive(arrived);
	check(msgrcv(awaited, &message, sizeof(message.text), 9, 0) == 4, "msgrcv: %s",
	      strerror(errno));
	check(!memcmp(message.text, "late", 4), "the wrong message");
}

static void wait_for_room(void *argument)
{
	(void)argument;
	victim_arrive(arrived);
	put(full, 5, "last", 4);
}

static void build_keyed(void)
{
	char text[LONG];
	struct msqid_ds data;

	keyed = must(msgget(KEY, IPC_CREAT | IPC_EXCL | 0640));
	victim_fill(text, sizeof(text), 1);
	put(keyed, 3, text, sizeof(text));
	put(keyed, 1, "", 0);
	put(keyed, 7, "out of turn", 11);
	receiver = victim_child(receive_last, NULL);
	victim_meet(arrived, 1);
	sender = victim_child(send_last, NULL);
	victim_meet(arrived, 2);
	must(msgctl(keyed, IPC_STAT, &data));
	data.msg_qbytes = LIMIT;
	must(msgctl(keyed, IPC_SET, &data));
}

static void build_others(void)
{
	struct msqid_ds data;

	/* ids that have been used before come back with another sequence number */
	for (int i = 0; i < 3; i++)
		must(msgctl(must(msgget(IPC_PRIVATE, 0600)), IPC_RMID, NULL));
	must(seteuid(77));
	others = must(msgget(KEY + 1, IPC_CREAT | 0600));
	put(others, 1, "mine", 4);
	must(seteuid(0));
	empty = must(msgget(IPC_PRIVATE, 0606));
	/* less than waits in it */
	full = must(msgget(IPC_PRIVATE, 0600));
	for (int i = 0; i < 4; i++)
		put(full, 4, "full", 4);
	must(msgctl(full, IPC_STAT, &data));
	data.msg_qbytes = 10;
	must(msgctl(full, IPC_SET, &data));
	awaited = must(msgget(IPC_PRIVATE, 0600));
	put(awaited, 8, "not this", 8);
	waiting = victim_child(wait_for_message, NULL);
	blocked = victim_child(wait_for_room, NULL);
	victim_meet(arrived, 2);
	victim_nap(30); /* into their calls */
}

static void verify_keyed(void)
{
	char text[LONG];
	struct msqid_ds data;

	check(msgget(KEY, 0) == keyed, "the key leads to %d, not %d", msgget(KEY, 0), keyed);
	must(msgctl(keyed, IPC_STAT, &data));
	check((data.msg_perm.mode & 0777) == 0640, "mode %o", data.msg_perm.mode);
	check(data.msg_qbytes == LIMIT, "limit %lu", (unsigned long)data.msg_qbytes);
	check(data.msg_qnum == 3 && data.__msg_cbytes == LONG + 6, "%lu messages",
	      (unsigned long)data.msg_qnum);
	check(data.msg_lspid == sender, "sent by %d, not %d", data.msg_lspid, sender);
	check(data.msg_lrpid == receiver, "received by %d, not %d", data.msg_lrpid, receiver);
	victim_fill(text, sizeof(text), 1);
	take(keyed, 2, 2, "second", 6);
	take(keyed, 0, 3, text, sizeof(text));
	take(keyed, -5, 1, "", 0);
	must(msgctl(keyed, IPC_RMID, NULL));
}

static void verify_others(void)
{
	struct msqid_ds data;

	must(msgctl(others, IPC_STAT, &data));
	check(data.msg_perm.uid == 77 && data.msg_perm.cuid == 77, "creator %d",
	      data.msg_perm.cuid);
	take(others, 0, 1, "mine", 4);
	must(msgctl(others, IPC_RMID, NULL));
	must(msgctl(empty, IPC_STAT, &data));
	check((data.msg_perm.mode & 0777) == 0606, "mode %o", data.msg_perm.mode);
	check(data.msg_qnum == 0 && data.msg_lspid == 0 && data.msg_lrpid == 0, "used by %d, %d",
	      data.msg_lspid, data.msg_lrpid);
	must(msgctl(empty, IPC_RMID, NULL));
}

static void verify_waiters(void)
{
	check(waitpid(waiting, NULL, WNOHANG) == 0, "does not wait any more");
	check(waitpid(blocked, NULL, WNOHANG) == 0, "does not wait for room any more");
	put(awaited, 9, "late", 4);
	victim_reap(waiting);
	take(awaited, 0, 8, "not this", 8);
	for (int i = 0; i < 3; i++)
		take(full, 0, 4, "full", 4);
	victim_reap(blocked);
	take(full, 0, 4, "full", 4);
	take(full, 0, 5, "last", 4);
	must(msgctl(awaited, IPC_RMID, NULL));
	must(msgctl(full, IPC_RMID, NULL));
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	arrived = victim_shared(4096);
	build_others();
	*arrived = 0;
	build_keyed();
	victim_ready();
	victim_wait();
	verify_keyed();
	verify_others();
	verify_waiters();
	victim_reap(sender);
	victim_reap(receiver);
	victim_ok();
	return 0;
}
