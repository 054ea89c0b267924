/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every victim shares. A victim builds some state, says "ready" in its status file (argv[1]),
 * waits for a second file beside it, finds out whether its state is what it was, and says "ok" or
 * "FAIL why". While it waits it sleeps 10 ms at a time, so that a checkpoint meets it inside and
 * outside of calls.
 */
#ifndef VICTIM_H
#define VICTIM_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *victim_path;

/* One line into the status file; its descriptor does not stay open. */
__attribute__((unused, format(printf, 1, 2))) static void victim_say(const char *fmt, ...)
{
	char line[1024];
	va_list args;
	int length, fd;

	va_start(args, fmt);
	length = vsnprintf(line, sizeof(line) - 1, fmt, args);
	va_end(args);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	fd = open(victim_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || write(fd, line, length) != length)
		_exit(2);
	close(fd);
}

/* The state is not what it should be: say so and end this process with all its threads. */
#define check(good, ...)                                                                           \
	do {                                                                                       \
		if (!(good)) {                                                                     \
			int check_errno = errno;                                                   \
			char check_text[512];                                                      \
			snprintf(check_text, sizeof(check_text), __VA_ARGS__);                     \
			victim_say("FAIL %s (%s:%d, errno %d)", check_text, __FILE__, __LINE__,    \
				   check_errno);                                                   \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

/* For calls that must work while the state is built or looked at. */
#define must(call)                                                                                 \
	({                                                                                         \
		__typeof__(call) must_result = (call);                                             \
		check((long)must_result != -1, "%s: %s", #call, strerror(errno));                  \
		must_result;                                                                       \
	})

__attribute__((unused)) static void victim_init(int argc, char **argv)
{
	if (argc < 2)
		_exit(2);
	victim_path = argv[1];
	/* Children under other users write here too. */
	close(open(victim_path, O_WRONLY | O_CREAT | O_TRUNC, 0666));
	chmod(victim_path, 0666);
}

__attribute__((unused)) static void victim_ready(void)
{
	victim_say("ready");
}

__attribute__((unused)) static void victim_ok(void)
{
	victim_say("ok");
}

__attribute__((unused)) static bool victim_told_to_go(void)
{
	char path[256];

	snprintf(path, sizeof(path), "%s.go", victim_path);
	return access(path, F_OK) == 0;
}

/* nanosleep() must never come back early: a checkpoint is not a signal. */
__attribute__((unused)) static void victim_nap(long milliseconds)
{
	struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};

	check(nanosleep(&time, NULL) == 0, "nanosleep was interrupted: %s", strerror(errno));
}

__attribute__((unused)) static void victim_wait(void)
{
	while (!victim_told_to_go())
		victim_nap(10);
}

/* One of the states that a victim builds by request: argv[2] names it. */
struct victim_state {
	const char *name;
	void (*build)(void);
	void (*verify)(void);
};

/* The main() of such a victim. */
__attribute__((unused)) static int victim_of(const struct victim_state *states, size_t count,
					     int argc, char **argv)
{
	const struct victim_state *state = NULL;

	victim_init(argc, argv);
	for (size_t i = 0; argc > 2 && i < count; i++)
		if (strcmp(argv[2], states[i].name) == 0)
			state = &states[i];
	check(state, "no such state");
	state->build();
	victim_ready();
	victim_wait();
	state->verify();
	victim_ok();
	return 0;
}

/* A page of memory that a victim and its children share, to wait for each other. */
__attribute__((unused)) static void *victim_shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	return memory;
}

/* Run a function in a child process, which ends well when the function returns. */
__attribute__((unused)) static pid_t victim_child(void (*function)(void *), void *argument)
{
	pid_t pid = must(fork());

	if (pid == 0) {
		function(argument);
		_exit(0);
	}
	return pid;
}

/* The child must have ended well; what it had to say is in the status file. */
__attribute__((unused)) static void victim_reap(pid_t pid)
{
	int status;

	check(waitpid(pid, &status, 0) == pid, "waitpid(%d): %s", pid, strerror(errno));
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with status %#x", pid,
	      status);
}

/* Block until *counter, which children increase, has come to @wanted. */
__attribute__((unused)) static void victim_meet(const uint32_t *counter, uint32_t wanted)
{
	while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) < wanted)
		victim_nap(1);
}

__attribute__((unused)) static void victim_arrive(uint32_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

/* A whole small file, such as one of /proc, into a buffer; NUL-terminated. */
__attribute__((unused)) static size_t victim_read(const char *path, char *buffer, size_t size)
{
	int fd = must(open(path, O_RDONLY | O_CLOEXEC));
	size_t length = 0;
	ssize_t got;

	while (length < size - 1 && (got = read(fd, buffer + length, size - 1 - length)) > 0)
		length += got;
	close(fd);
	check(length < size - 1, "%s does not fit into %zu bytes", path, size);
	buffer[length] = 0;
	return length;
}

/* Pseudo-random bytes that can be made again: xorshift64*. */
__attribute__((unused)) static void victim_fill(void *memory, size_t size, uint64_t seed)
{
	uint64_t *words = memory;
	uint64_t x = seed * 2 + 1;

	for (size_t i = 0; i < size / sizeof(*words); i++) {
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
		words[i] = x * 0x2545f4914f6cdd1dULL;
	}
}

/* Offset of the first byte (rounded down to 8) that differs from victim_fill(), or -1. */
__attribute__((unused)) static long victim_differs(const void *memory, size_t size, uint64_t seed)
{
	const uint64_t *words = memory;
	uint64_t x = seed * 2 + 1;

	for (size_t i = 0; i < size / sizeof(*words); i++) {
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
		if (words[i] != x * 0x2545f4914f6cdd1dULL)
			return i * sizeof(*words);
	}
	return -1;
}

#endif
