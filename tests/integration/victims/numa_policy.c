/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NUMA memory policies of threads and of mappings. One node is enough to tell them apart. */
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "victim.h"

enum { PAGE = 4096, SIZE = 8 * PAGE, BITS = 64 };

#ifndef SYS_set_mempolicy_home_node
#define SYS_set_mempolicy_home_node 450
#endif

/* The first node that this container may use, and nothing else. */
static unsigned long nodes;
static bool absent; /* a kernel without NUMA */
static char *bound, *spread, *plain;
static pthread_barrier_t barrier;

static long set_policy(int mode, unsigned long mask)
{
	return syscall(SYS_set_mempolicy, mode, mask ? &mask : NULL, mask ? BITS : 0);
}

static void expect(const void *address, int wanted, unsigned long wanted_nodes)
{
	unsigned long mask[1024 / BITS] = {0};
	int mode = -1;

	must(syscall(SYS_get_mempolicy, &mode, mask, 1024, address, address ? MPOL_F_ADDR : 0));
	check(mode == wanted, "policy %#x, not %#x, of %p", mode, wanted, address);
	check(mask[0] == wanted_nodes, "nodes %#lx, not %#lx, of %p", mask[0], wanted_nodes,
	      address);
}

static char *map(void)
{
	char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(at != MAP_FAILED, "mmap");
	return at;
}

static void build_mappings(void)
{
	bound = map();
	spread = map();
	plain = map();
	victim_fill(bound, SIZE, 1);
	victim_fill(plain, SIZE, 2);
	/* the middle of it: three mappings */
	must(syscall(SYS_mbind, bound + 2 * PAGE, 3 * PAGE, MPOL_BIND, &nodes, BITS, 0));
	must(syscall(SYS_set_mempolicy_home_node, bound + 2 * PAGE, 3 * PAGE, __builtin_ctzl(nodes),
		     0));
	must(syscall(SYS_mbind, spread, SIZE, MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES, &nodes, BITS,
		     0));
}

static void verify_mappings(void)
{
	char home[64], text[65536], *at;

	check(victim_differs(bound, SIZE, 1) < 0 && victim_differs(plain, SIZE, 2) < 0, "contents");
	expect(bound, MPOL_DEFAULT, 0);
	expect(bound + 2 * PAGE, MPOL_BIND, nodes);
	expect(bound + 4 * PAGE, MPOL_BIND, nodes);
	expect(bound + 5 * PAGE, MPOL_DEFAULT, 0);
	expect(spread, MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES, nodes);
	expect(plain, MPOL_DEFAULT, 0);
	victim_read("/proc/self/numa_maps", text, sizeof(text));
	snprintf(home, sizeof(home), "%lx bind:", (unsigned long)bound + 2 * PAGE);
	at = strstr(text, home);
	check(at, "not in numa_maps: %s", home);
}

/* Another policy than that of the first thread. */
static void *second_thread(void *unused)
{
	must(set_policy(MPOL_BIND | MPOL_F_STATIC_NODES, nodes));
	pthread_barrier_wait(&barrier);
	victim_wait();
	expect(NULL, MPOL_BIND | MPOL_F_STATIC_NODES, nodes);
	return unused;
}

/* As its parent, by inheritance; and one that has gone back to the default. */
static void child(void *argument)
{
	if (argument)
		must(set_policy(MPOL_DEFAULT, 0));
	victim_wait();
	expect(NULL, argument ? MPOL_DEFAULT : MPOL_PREFERRED, argument ? 0 : nodes);
}

int main(int argc, char **argv)
{
	unsigned long allowed[1024 / BITS] = {0};
	pthread_t thread;
	pid_t heir, other;

	victim_init(argc, argv);
	absent = syscall(SYS_get_mempolicy, NULL, allowed, 1024, NULL, MPOL_F_MEMS_ALLOWED) < 0;
	if (absent) {
		check(errno == ENOSYS, "get_mempolicy: %s", strerror(errno));
		victim_ready();
		victim_wait();
		victim_ok();
		return 0;
	}
	check(allowed[0], "no node");
	nodes = allowed[0] & -allowed[0];
	pthread_barrier_init(&barrier, NULL, 2);
	check(pthread_create(&thread, NULL, second_thread, NULL) == 0, "pthread_create");
	pthread_barrier_wait(&barrier);
	must(set_policy(MPOL_PREFERRED, nodes));
	build_mappings();
	heir = victim_child(child, NULL);
	other = victim_child(child, &nodes);
	victim_ready();
	victim_wait();
	expect(NULL, MPOL_PREFERRED, nodes);
	verify_mappings();
	check(pthread_join(thread, NULL) == 0, "pthread_join");
	victim_reap(heir);
	victim_reap(other);
	victim_ok();
	return 0;
}
