/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory protection keys: which are allocated, what is under them, what each thread may do there, and
 * the key that the kernel takes for memory that may only be executed. Says "none" before it is ready
 * where the processor has none to give.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include "victim.h"

enum { PAGE = 4096, STACK = 64 << 10, KEYS = 4, FOREIGN = 0x5e };

static uint32_t *arrived;
static char *page[KEYS]; /* each under the key of its number */
static int key[KEYS];
static int (*function)(void);

static __thread sigjmp_buf back;
static __thread int fault_code, fault_key;

static void caught(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	fault_code = info->si_code;
	fault_key = info->si_pkey;
	siglongjmp(back, 1);
}

static unsigned int rights_of_all(void)
{
	unsigned int rights, rest;

	__asm__ volatile("rdpkru" : "=a"(rights), "=d"(rest) : "c"(0));
	return rights;
}

static void set_rights_of_all(unsigned int rights)
{
	__asm__ volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0) : "memory");
}

/* Which key forbids it, 0: none. */
static int forbids(volatile char *at, bool write)
{
	volatile unsigned int rights = rights_of_all();

	if (sigsetjmp(back, 1)) {
		/* the handler, and who jumps out of it, has all keys but 0 closed */
		set_rights_of_all(rights);
		return fault_code == SEGV_PKUERR ? fault_key : -1;
	}
	if (write)
		*at = *at;
	else
		(void)*at;
	return 0;
}

static void *map(size_t size, int protection)
{
	void *memory = mmap(NULL, size, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	return memory;
}

/* ProtectionKey in /proc/self/smaps. */
static int key_of(const void *address)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	bool is_it = false;
	int found = -1;
	char line[512];

	check(file, "smaps: %s", strerror(errno));
	while (found < 0 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			is_it = (unsigned long)address >= start && (unsigned long)address < end;
		else if (is_it)
			sscanf(line, "ProtectionKey: %d", &found);
	}
	fclose(file);
	return found;
}

static void make_function(void)
{
	static const unsigned char code[] = {0xb8, 0x2a, 0, 0, 0, 0xc3}; /* return 42 */
	void *memory = map(PAGE, PROT_READ | PROT_WRITE);

	memcpy(memory, code, sizeof(code));
	must(mprotect(memory, PAGE, PROT_EXEC));
	memcpy(&function, &memory, sizeof(function));
}

/* Keys: 1 may be read, 2 nothing, 3 everything; 4 is freed with memory under it. */
static void build_keys(void)
{
	static const unsigned int rights[KEYS] = {PKEY_DISABLE_WRITE, PKEY_DISABLE_ACCESS, 0, 0};

	for (int i = 0; i < KEYS; i++) {
		key[i] = must(pkey_alloc(0, 0));
		page[i] = map(PAGE, PROT_READ | PROT_WRITE);
		*page[i] = (char)(FOREIGN + i);
		must(pkey_mprotect(page[i], PAGE, PROT_READ | PROT_WRITE, key[i]));
		must(pkey_set(key[i], rights[i]));
	}
	must(pkey_free(key[3]));
}

static void check_keys(const char *who)
{
	int again;

	check(forbids(page[0], false) == 0 && forbids(page[0], true) == key[0],
	      "%s: write by key %d", who, key[0]);
	check(forbids(page[1], false) == key[1], "%s: access by key %d", who, key[1]);
	check(forbids(page[2], true) == 0, "%s: key %d forbids something", who, key[2]);
	check(pkey_get(key[0]) == PKEY_DISABLE_WRITE, "%s: rights", who);
	for (int i = 0; i < KEYS; i++)
		check(key_of(page[i]) == key[i], "%s: page %d is under key %d", who, i,
		      key_of(page[i]));
	must(pkey_set(key[1], 0));
	for (int i = 0; i < KEYS - 1; i++)
		check(*page[i] == (char)(FOREIGN + i), "%s: page %d holds %d", who, i, *page[i]);
	/* the one that was freed is the lowest that is free */
	again = must(pkey_alloc(0, 0));
	check(again == key[3], "%s: key %d is free, not %d", who, again, key[3]);
	must(pkey_free(again));
}

static void check_function(int wanted)
{
	char *code;

	memcpy(&code, &function, sizeof(code));
	check(key_of(code) == wanted, "code is under key %d, was %d", key_of(code), wanted);
	check(function() == 42, "the function");
	check(forbids(code, false) == wanted, "code can be read");
}

/* Born before there was an execute-only key, and takes one of its own later. */
static void early_child(void *unused)
{
	int own;

	check_keys("early child");
	must(pkey_set(key[1], PKEY_DISABLE_ACCESS));
	must(pkey_free(key[2]));
	make_function();
	own = key_of(*(void **)&function);
	check(own == key[2], "execute-only key %d", own);
	victim_arrive(arrived);
	victim_wait();
	check_function(own);
	check(forbids(page[1], false) == key[1], "early child: access by key %d", key[1]);
	check(key_of(page[2]) == own, "early child: key %d", key_of(page[2]));
	(void)unused;
}

static void late_child(void *execute_only)
{
	victim_arrive(arrived);
	victim_wait();
	check_keys("late child");
	check_function(*(int *)execute_only);
}

/* Its stack, with all that the C library keeps there for the kernel, is under a key too. */
static void *thread(void *unused)
{
	must(pkey_set(key[0], 0));
	must(pkey_set(key[1], PKEY_DISABLE_WRITE));
	victim_arrive(arrived);
	victim_wait();
	check(forbids(page[0], true) == 0, "thread: key %d forbids something", key[0]);
	check(forbids(page[1], false) == 0, "thread: access by key %d", key[1]);
	check(pkey_get(key[1]) == PKEY_DISABLE_WRITE, "thread: rights");
	return unused;
}

static pthread_t make_thread(int stack_key)
{
	void *stack = map(STACK, PROT_READ | PROT_WRITE);
	pthread_attr_t attributes;
	pthread_t made;

	must(pkey_mprotect(stack, STACK, PROT_READ | PROT_WRITE, stack_key));
	pthread_attr_init(&attributes);
	check(pthread_attr_setstack(&attributes, stack, STACK) == 0, "a stack");
	check(pthread_create(&made, &attributes, thread, NULL) == 0, "pthread_create");
	return made;
}

static void run(void)
{
	pid_t pids[2];
	pthread_t other;
	int execute_only;

	build_keys();
	pids[0] = victim_child(early_child, NULL);
	make_function();
	execute_only = key_of(*(void **)&function);
	check(execute_only == key[3], "execute-only key %d", execute_only);
	key[3] = must(pkey_alloc(0, 0));
	must(pkey_mprotect(page[3], PAGE, PROT_READ | PROT_WRITE, key[3]));
	must(pkey_free(key[3]));
	pids[1] = victim_child(late_child, &execute_only);
	other = make_thread(key[2]);
	victim_meet(arrived, 3);
	must(pkey_set(key[2], PKEY_DISABLE_ACCESS));
	victim_ready();
	victim_wait();
	check(forbids(page[2], false) == key[2], "access by key %d", key[2]);
	must(pkey_set(key[2], 0));
	check(pthread_join(other, NULL) == 0, "pthread_join");
	check_keys("main");
	check_function(execute_only);
	victim_reap(pids[0]);
	victim_reap(pids[1]);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
	int first;

	victim_init(argc, argv);
	arrived = victim_shared(PAGE);
	must(sigaction(SIGSEGV, &action, NULL));
	first = pkey_alloc(0, 0);
	if (first < 0) {
		check(errno == ENOSPC || errno == ENOSYS || errno == EINVAL, "pkey_alloc");
		victim_say("none");
		make_function();
		victim_ready();
		victim_wait();
		check(function() == 42, "the function");
	} else {
		must(pkey_free(first));
		run();
	}
	victim_ok();
	return 0;
}
