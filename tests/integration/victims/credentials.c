/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Credentials: all four uids and gids, groups, the five capability sets, securebits, no_new_privs;
 * also where one thread has others than its neighbours.
 */
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

enum { TEXT = 4096 };

static uint32_t *arrived;

/* The lines of /proc/thread-self/status that tell who this thread is, and what prctl() adds. */
static void look(char *buffer)
{
	static const char *const wanted[] = {"Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:"};
	static __thread char status[TEXT];
	char *out = buffer;

	victim_read("/proc/thread-self/status", status, sizeof(status));
	for (char *save, *line = strtok_r(status, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
			if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
				out += sprintf(out, "%s; ", line);
	sprintf(out, "securebits %#x", must(prctl(PR_GET_SECUREBITS)));
}

static void arrive_and_compare(const char *who)
{
	char before[TEXT], now[TEXT];

	look(before);
	victim_arrive(arrived);
	victim_wait();
	look(now);
	check(strcmp(before, now) == 0, "%s: was %s, is %s", who, before, now);
}

static void set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {
		{effective, permitted, inheritable},
		{effective >> 32, permitted >> 32, inheritable >> 32},
	};

	must(syscall(SYS_capset, &header, data));
}

static uint64_t bit(int capability)
{
	return 1ULL << capability;
}

static void ordinary_user(void *unused)
{
	gid_t groups[] = {7, 2000, 70000};

	(void)unused;
	must(setgroups(3, groups));
	must(setresgid(1001, 1002, 1003));
	must(setresuid(1001, 1002, 1003));
	arrive_and_compare("ordinary user");
	check(setuid(0) < 0, "an ordinary user became root");
}

static void user_with_capabilities(void *unused)
{
	uint64_t kept = bit(CAP_NET_RAW) | bit(CAP_CHOWN) | bit(CAP_SETUID);

	(void)unused;
	must(prctl(PR_SET_KEEPCAPS, 1));
	must(setresuid(33, 33, 33));
	set_capabilities(kept, kept, bit(CAP_NET_RAW));
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0));
	set_capabilities(bit(CAP_CHOWN), kept, bit(CAP_NET_RAW));
	arrive_and_compare("user with capabilities");
}

static void bounded_root(void *unused)
{
	(void)unused;
	must(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
	must(prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN));
	must(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS));
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	arrive_and_compare("bounded root");
}

/* A file server of the old school. */
static void file_server(void *unused)
{
	(void)unused;
	setfsgid(501);
	setfsuid(500);
	arrive_and_compare("file server");
	check((int)syscall(SYS_setfsuid, -1) == 500, "fsuid is lost");
}

/* glibc sets all threads at once; the kernel knows nothing of that. */
static void *other_thread(void *unused)
{
	must(syscall(SYS_setresgid, 601, 602, 603));
	must(syscall(SYS_setresuid, 600, 600, 0));
	arrive_and_compare("other thread");
	return unused;
}

static void mixed_threads(void *unused)
{
	pthread_t thread;

	(void)unused;
	check(pthread_create(&thread, NULL, other_thread, NULL) == 0, "pthread_create");
	arrive_and_compare("first thread");
	check(pthread_join(thread, NULL) == 0, "join");
}

int main(int argc, char **argv)
{
	void (*people[])(void *) = {ordinary_user, user_with_capabilities, bounded_root,
				    file_server, mixed_threads};
	enum { PEOPLE = sizeof(people) / sizeof(people[0]) };
	pid_t pids[PEOPLE];

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	for (int i = 0; i < PEOPLE; i++)
		pids[i] = victim_child(people[i], NULL);
	victim_meet(arrived, PEOPLE + 1);
	victim_ready();
	arrive_and_compare("root");
	for (int i = 0; i < PEOPLE; i++)
		victim_reap(pids[i]);
	victim_ok();
	return 0;
}
