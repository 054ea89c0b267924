/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one ordered table. Objects: the first claim wins. Processes and threads: the order of the
 * restart; credentials come late, because everything before them may need a privilege that they
 * take away.
 */
#include <stdlib.h>
#include <string.h>

#include "../model.h"

#define KINDS(row)                                                                                 \
	/* shared between tasks */                                                                 \
	row(ipc_namespace) row(shared_memory) row(sysv_shared_memory) row(sysv_message_queue)      \
		row(sysv_semaphore_set) row(memfd) row(volatile_file) row(lock) row(lock_waiter)   \
			row(outside_lock) row(lease) row(regular) row(directory) row(device)       \
				row(pipe) row(fifo) row(tty) row(eventfd) row(timerfd)             \
					row(signalfd) row(pidfd) row(unix_socket) row(epoll)       \
						row(seccomp_filter) row(key) row(share)            \
							row(thread_tables) /* of a process */      \
		row(process) row(login) row(memory) row(files) row(dnotify) row(terminal) row(fs)  \
			row(sigaction) row(posix_timer) row(rlimits) row(itimer) row(prctl)        \
				row(zombie) /* of a thread */                                      \
		row(thread) row(task_settings) row(seccomp) row(robust_list) row(tid_address)      \
			row(rseq) row(sigaltstack) row(signals) row(credentials) row(numa_policy)  \
				row(scheduler) row(syscall_dispatch) row(restart_block)            \
					row(registers)

#define DECLARE(name) extern const struct kind name##_kind;
KINDS(DECLARE)

#define ROW(name) &name##_kind,
const struct kind *const kinds[] = {KINDS(ROW)};

enum { KINDS_COUNT = sizeof(kinds) / sizeof(kinds[0]) };

unsigned int kinds_count(void)
{
	return KINDS_COUNT;
}

const struct kind *kind_by_name(const char *name)
{
	for (unsigned int i = 0; i < KINDS_COUNT; i++) {
		if (!strcmp(kinds[i]->name, name))
			return kinds[i];
	}
	return NULL;
}

unsigned int kind_index(const struct kind *kind)
{
	unsigned int i = 0;

	while (kinds[i] != kind)
		i++;
	return i;
}

const char *cr_kind_name(unsigned int index)
{
	return index < KINDS_COUNT ? kinds[index]->name : NULL;
}

char *cr_kind_fields(unsigned int index)
{
	char *text = NULL;

	if (index < KINDS_COUNT)
		cr_error_free(record_describe(kinds[index]->fields, &text));
	return text;
}

void cr_text_free(char *text)
{
	free(text);
}
