/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System V shared memory: attached by two processes, read-only, in part, marked for removal, not
 * attached at all, of hugetlb pages where the system has some; the first one of a namespace, whose id
 * is 0; ids, keys, owners and permissions.
 */
#include <sys/ipc.h>
#include <sys/shm.h>

#include "victim.h"

#ifndef SHM_DEST
#define SHM_DEST 01000
#endif

enum {
	PAGE = 4096,
	PAGES = 8,
	SIZE = PAGES * PAGE,
	ODD = 3 * PAGE + 100,
	KEY = 0x12345678,
	HUGE = 2 << 20
};

static int first, keyed, removed, detached, others, partial_id, huge = -1;
static char *first_memory, *memory, *reader, *condemned, *partial, *huge_memory;

static char *attach(int id, int flags)
{
	char *at = shmat(id, NULL, flags);

	check(at != (void *)-1, "shmat: %s", strerror(errno));
	return at;
}

static void build(void)
{
	char *at;

	first = must(shmget(IPC_PRIVATE, SIZE, 0600));
	first_memory = attach(first, 0);
	victim_fill(first_memory, SIZE, 6);
	/* the other ids are not those of a fresh namespace */
	must(shmctl(must(shmget(IPC_PRIVATE, 1, 0600)), IPC_RMID, NULL));
	keyed = must(shmget(KEY, SIZE, IPC_CREAT | IPC_EXCL | 0640));
	memory = attach(keyed, 0);
	reader = attach(keyed, SHM_RDONLY);
	victim_fill(memory, SIZE, 1);

	removed = must(shmget(IPC_PRIVATE, ODD, 0600));
	condemned = attach(removed, 0);
	must(shmctl(removed, IPC_RMID, NULL));
	victim_fill(condemned, ODD, 2);

	detached = must(shmget(KEY + 1, SIZE, IPC_CREAT | 0604));
	at = attach(detached, 0);
	victim_fill(at + 2 * PAGE, PAGE, 3);
	must(shmdt(at));

	must(seteuid(77));
	others = must(shmget(KEY + 2, PAGE, IPC_CREAT | 0600));
	must(seteuid(0));

	partial_id = must(shmget(IPC_PRIVATE, SIZE, 0600));
	partial = attach(partial_id, 0);
	victim_fill(partial, SIZE, 4);
	must(munmap(partial, 2 * PAGE));
	must(munmap(partial + 5 * PAGE, 3 * PAGE));

	huge = shmget(IPC_PRIVATE, 2L * HUGE, SHM_HUGETLB | 0600);
	if (huge < 0)
		return;
	huge_memory = attach(huge, 0);
	victim_fill(huge_memory + HUGE, HUGE, 7);
}

static struct shmid_ds look(int id)
{
	struct shmid_ds data;

	must(shmctl(id, IPC_STAT, &data));
	return data;
}

static void verify_keyed(void)
{
	struct shmid_ds data = look(keyed);

	check(shmget(KEY, 0, 0) == keyed, "key %#x leads to %d, not %d", KEY, shmget(KEY, 0, 0),
	      keyed);
	check((data.shm_perm.mode & 07777) == 0640, "mode %o", data.shm_perm.mode);
	check(data.shm_segsz == SIZE && data.shm_nattch == 4, "%lu bytes, %lu attached",
	      (unsigned long)data.shm_segsz, (unsigned long)data.shm_nattch);
	check(victim_differs(memory, SIZE, 1) < 0, "contents");
	memory[9] ^= 1;
	check(reader[9] == memory[9], "attached twice, and not the same");
	check(mprotect(reader, PAGE, PROT_READ | PROT_WRITE) < 0, "SHM_RDONLY lost");
	must(shmdt(reader));
}

static void verify_others(void)
{
	struct shmid_ds data = look(removed);
	char *at;

	check(data.shm_perm.mode & SHM_DEST, "not marked for removal any more");
	check(data.shm_segsz == ODD, "removed: %lu bytes", (unsigned long)data.shm_segsz);
	check(victim_differs(condemned, ODD / 8 * 8, 2) < 0, "removed: contents");
	must(shmdt(condemned));
	check(shmctl(removed, IPC_STAT, &data) < 0, "still there");

	check(shmget(KEY + 1, 0, 0) == detached, "detached: key");
	data = look(detached);
	check((data.shm_perm.mode & 07777) == 0604 && data.shm_nattch == 0, "detached");
	at = attach(detached, 0);
	check(victim_differs(at + 2 * PAGE, PAGE, 3) < 0 && at[0] == 0, "detached: contents");
	must(shmctl(detached, IPC_RMID, NULL));

	data = look(others);
	check(data.shm_perm.uid == 77 && data.shm_perm.cuid == 77, "creator %d",
	      data.shm_perm.cuid);
	must(shmctl(others, IPC_RMID, NULL));

	check(victim_differs(memory, PAGE, 1) == 8, "changed");
	at = attach(partial_id, 0);
	victim_fill(at, SIZE, 5);
	check(memcmp(partial + 2 * PAGE, at + 2 * PAGE, 3 * PAGE) == 0, "partial");
	must(shmdt(at));
	data = look(partial_id);
	check(data.shm_nattch == 1, "partial: %lu attached", (unsigned long)data.shm_nattch);
	must(shmdt(partial));
	must(shmctl(partial_id, IPC_RMID, NULL));
}

static void verify_first(void)
{
	check(look(first).shm_nattch == 2, "first: %lu attached",
	      (unsigned long)look(first).shm_nattch);
	check(victim_differs(first_memory, SIZE, 6) < 0, "first: contents");
	must(shmctl(first, IPC_RMID, NULL));
	if (huge < 0)
		return;
	check(victim_differs(huge_memory + HUGE, HUGE, 7) < 0, "huge: contents");
	must(shmctl(huge, IPC_RMID, NULL));
}

static void child(void *argument)
{
	(void)argument;
	victim_wait();
	while (__atomic_load_n(&memory[100], __ATOMIC_SEQ_CST) != 'a')
		victim_nap(1);
	must(shmdt(condemned));
	memory[101] = 'b';
}

int main(int argc, char **argv)
{
	pid_t pid;

	victim_init(argc, argv);
	build();
	pid = victim_child(child, NULL);
	victim_ready();
	victim_wait();
	verify_first();
	verify_keyed();
	__atomic_store_n(&memory[100], 'a', __ATOMIC_SEQ_CST);
	victim_reap(pid);
	check(memory[101] == 'b', "the child has another segment");
	verify_others();
	must(shmctl(keyed, IPC_RMID, NULL));
	victim_ok();
	return 0;
}
