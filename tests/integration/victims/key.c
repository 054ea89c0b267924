/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keys and keyrings: what they hold, whose they are, when they expire, and who shares them. Numbers
 * change; everything is found by its name.
 */
#include <linux/keyctl.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "victim.h"

enum { ALL = 0x3f3f0000, SHY = 0x3f010000, USER = 1234, EXPIRES = 3000, REVOKED = 128 };

static uint32_t *arrived;
static uint32_t *late; /* somebody has added a key after the checkpoint */

static long keyctl(int operation, long a, long b, long c, long d)
{
	return syscall(SYS_keyctl, operation, a, b, c, d);
}

static long add(const char *type, const char *name, const char *payload, long keyring)
{
	return must(
		syscall(SYS_add_key, type, name, payload, payload ? strlen(payload) : 0, keyring));
}

static long find(const char *type, const char *name, long keyring)
{
	return keyctl(KEYCTL_SEARCH, keyring, (long)type, (long)name, 0);
}

static void expect(const char *name, const char *payload, long keyring)
{
	char buffer[64] = "";
	long key = find("user", name, keyring);

	check(key > 0, "key %s is lost", name);
	must(keyctl(KEYCTL_READ, key, (long)buffer, sizeof(buffer) - 1, 0));
	check(!strcmp(buffer, payload), "key %s holds '%s'", name, buffer);
}

/* "keyring;0;0;3f010000;_ses" */
static void expect_described(long key, const char *wanted)
{
	char buffer[128] = "";

	must(keyctl(KEYCTL_DESCRIBE, key, (long)buffer, sizeof(buffer), 0));
	check(!strcmp(buffer, wanted), "%s, was %s", buffer, wanted);
}

static long session(void)
{
	return must(keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0, 0));
}

/* /proc/keys: serial, flags, usage, time left, ... */
static void expect_expiry(long key)
{
	char text[65536], line[32], left[16], *at;

	victim_read("/proc/keys", text, sizeof(text));
	snprintf(line, sizeof(line), "%08lx ", key);
	at = strstr(text, line);
	check(at && sscanf(at, "%*s %*s %*s %15s", left) == 1, "key %lx is not in /proc/keys", key);
	check(!strcmp(left, "50m") || !strcmp(left, "49m") || !strcmp(left, "48m"),
	      "it expires in %s", left);
}

static void build_session(void)
{
	long inner, key;

	must(keyctl(KEYCTL_JOIN_SESSION_KEYRING, (long)"victim's session", 0, 0, 0));
	add("user", "plain", "some payload", KEY_SPEC_SESSION_KEYRING);
	key = add("user", "expires", "for a while", KEY_SPEC_SESSION_KEYRING);
	must(keyctl(KEYCTL_SET_TIMEOUT, key, EXPIRES, 0, 0));
	must(keyctl(KEYCTL_SETPERM, key, ALL, 0, 0));
	inner = add("keyring", "inner", NULL, KEY_SPEC_SESSION_KEYRING);
	key = add("user", "in both", "shared", inner);
	must(keyctl(KEYCTL_LINK, key, KEY_SPEC_SESSION_KEYRING, 0, 0));
	for (int i = 0; i < 60; i++) {
		char name[16];

		snprintf(name, sizeof(name), "many %d", i);
		add("user", name, name, inner);
	}
	key = add("user", "revoked", "gone", KEY_SPEC_SESSION_KEYRING);
	must(keyctl(KEYCTL_REVOKE, key, 0, 0, 0));
	must(keyctl(KEYCTL_SETPERM, KEY_SPEC_SESSION_KEYRING, ALL & ~0x00080000, 0, 0));
}

static void check_session(void)
{
	long inner = find("keyring", "inner", KEY_SPEC_SESSION_KEYRING), key;

	expect_described(session(), "keyring;0;0;3f370000;victim's session");
	expect("plain", "some payload", KEY_SPEC_SESSION_KEYRING);
	expect("expires", "for a while", KEY_SPEC_SESSION_KEYRING);
	key = find("user", "expires", KEY_SPEC_SESSION_KEYRING);
	expect_described(key, "user;0;0;3f3f0000;expires");
	expect_expiry(key);
	check(inner > 0, "the inner keyring is lost");
	expect("many 59", "many 59", inner);
	check(find("user", "in both", inner) == find("user", "in both", KEY_SPEC_SESSION_KEYRING),
	      "one key has become two");
	check(find("user", "revoked", KEY_SPEC_SESSION_KEYRING) < 0, "a revoked key is back");
}

/* Has the session of its parent. */
static void inherits(void *unused)
{
	(void)unused;
	victim_arrive(arrived);
	victim_wait();
	check_session();
	victim_meet(late, 1);
	expect("late", "added by main", KEY_SPEC_SESSION_KEYRING);
}

/* In the session of its mother, and a child of init's. */
static void orphan(void *unused)
{
	(void)unused;
	victim_arrive(arrived);
	victim_wait();
	expect("plain", "another one", KEY_SPEC_SESSION_KEYRING);
	add("user", "late", "added by the orphan", KEY_SPEC_SESSION_KEYRING);
	victim_arrive(late + 1);
}

static void middle(void *unused)
{
	victim_child(orphan, unused);
}

/* A nameless session of its own, with an equally named key. */
static void has_own(void *unused)
{
	long key;
	pid_t pid;

	must(keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0));
	add("user", "plain", "another one", KEY_SPEC_SESSION_KEYRING);
	must(keyctl(KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING, 0, 0));
	key = add("user", "of the user", "user's", KEY_SPEC_USER_KEYRING);
	must(keyctl(KEYCTL_SET_TIMEOUT, key, EXPIRES, 0, 0)); /* it may be the host's keyring */
	pid = victim_child(middle, unused);
	victim_reap(pid);
	victim_arrive(arrived);
	victim_wait();
	expect_described(session(), "keyring;0;0;3f030000;_ses");
	expect("plain", "another one", KEY_SPEC_SESSION_KEYRING);
	expect("of the user", "user's", KEY_SPEC_SESSION_KEYRING);
	check(find("keyring", "_uid.0", KEY_SPEC_SESSION_KEYRING) ==
		      keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 0, 0, 0),
	      "the link to the user's keyring is lost");
	victim_meet(late + 1, 1);
	expect("late", "added by the orphan", KEY_SPEC_SESSION_KEYRING);
}

/* Like a service of systemd: the keyring belongs to its user. */
static void other_user(void *unused)
{
	(void)unused;
	must(setresgid(USER, USER, USER));
	must(setresuid(USER, USER, USER));
	must(keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0));
	add("user", "mine", "of another user", KEY_SPEC_SESSION_KEYRING);
	must(keyctl(KEYCTL_SET_REQKEY_KEYRING, KEY_REQKEY_DEFL_SESSION_KEYRING, 0, 0, 0));
	victim_arrive(arrived);
	victim_wait();
	expect_described(session(), "keyring;1234;1234;3f030000;_ses");
	expect("mine", "of another user", KEY_SPEC_SESSION_KEYRING);
	expect_described(find("user", "mine", KEY_SPEC_SESSION_KEYRING),
			 "user;1234;1234;3f010000;mine");
	check(keyctl(KEYCTL_SET_REQKEY_KEYRING, KEY_REQKEY_DEFL_NO_CHANGE, 0, 0, 0) ==
		      KEY_REQKEY_DEFL_SESSION_KEYRING,
	      "where requested keys go");
}

/* A thread with a keyring of its own, in a process with one for its threads. */
static void *thread(void *process_key)
{
	add("user", "of the thread", "thread's", KEY_SPEC_THREAD_KEYRING);
	victim_arrive(arrived);
	victim_wait();
	expect("of the thread", "thread's", KEY_SPEC_THREAD_KEYRING);
	expect("of the process", "process's", KEY_SPEC_PROCESS_KEYRING);
	*(long *)process_key = find("user", "of the process", KEY_SPEC_PROCESS_KEYRING);
	return NULL;
}

static void has_threads(void *unused)
{
	pthread_t other;
	long key = 0;

	(void)unused;
	add("user", "of the process", "process's", KEY_SPEC_PROCESS_KEYRING);
	must(keyctl(KEYCTL_SETPERM, KEY_SPEC_PROCESS_KEYRING, SHY | 0x00020000, 0, 0));
	check(pthread_create(&other, NULL, thread, &key) == 0, "pthread_create");
	victim_arrive(arrived);
	victim_wait();
	check(pthread_join(other, NULL) == 0, "pthread_join");
	check(key > 0 && key == find("user", "of the process", KEY_SPEC_PROCESS_KEYRING),
	      "the process keyring is not shared any more");
	expect_described(keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 0, 0, 0),
			 "keyring;0;0;3f030000;_pid");
	check(keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_THREAD_KEYRING, 0, 0, 0) < 0,
	      "the main thread has a keyring");
}

int main(int argc, char **argv)
{
	static void (*const children[])(void *) = {inherits, has_own, other_user, has_threads};
	enum { CHILDREN = sizeof(children) / sizeof(children[0]) };
	pid_t pids[CHILDREN];

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	late = arrived + 1;
	build_session();
	for (int i = 0; i < CHILDREN; i++)
		pids[i] = victim_child(children[i], NULL);
	victim_meet(arrived, CHILDREN + 2);
	victim_ready();
	victim_wait();
	check_session();
	add("user", "late", "added by main", KEY_SPEC_SESSION_KEYRING);
	victim_arrive(late);
	for (int i = 0; i < CHILDREN; i++)
		victim_reap(pids[i]);
	victim_ok();
	return 0;
}
