/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the three sorts of System V objects have in common: they belong to the ipc namespace. */
#ifndef CR_SYSV_H
#define CR_SYSV_H

#include "../dump.h"
#include "../restore.h"

extern const struct kind sysv_message_queue_kind, sysv_semaphore_set_kind;

struct sysv_ipc {
	int32_t id, key;
	uint32_t mode; /* shared memory: with SHM_DEST */
	uint32_t uid, gid, cuid, cgid;
};

#define SYSV_INT(s, m, lo, text)                                                                   \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_INT, .offset = offsetof(s, ipc.m),                  \
		.size = sizeof(((s *)0)->ipc.m), .min = (lo), .max = INT32_MAX, .doc = (text)      \
	}
#define SYSV_UINT(s, m, most, text)                                                                \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_UINT, .offset = offsetof(s, ipc.m),                 \
		.size = sizeof(((s *)0)->ipc.m), .umax = (most), .doc = (text)                     \
	}

/* Of a struct with a struct sysv_ipc ipc. */
/* clang-format off */
#define FIELDS_SYSV(s)                                                                             \
	SYSV_INT(s, id, 0, "as shmget(2), msgget(2), semget(2) gave it"),                          \
	SYSV_INT(s, key, INT32_MIN, "0: IPC_PRIVATE"),                                             \
	SYSV_UINT(s, mode, 07777, "permissions; 01000: shared memory that is marked for removal"), \
	SYSV_UINT(s, uid, UINT32_MAX, "owner"),                                                    \
	SYSV_UINT(s, gid, UINT32_MAX, "group"),                                                    \
	SYSV_UINT(s, cuid, UINT32_MAX, "creator"),                                                 \
	SYSV_UINT(s, cgid, UINT32_MAX, "its group")
/* clang-format on */

/* The first line of /proc/sysvipc/@name, of the namespace of this process; NULL: there is none.
 * sysv_next_line() leads on. */
struct cr_error *sysv_table(struct dump *dump, const char *name, const char **ret);
const char *sysv_next_line(const char *line);

/* Number in the container of a process that some object names; 0: it is not there any more. */
int32_t sysv_process(const struct dump *dump, pid_t host_pid);

/* The next object of its sort gets this id; @sysctl: shm_next_id and the like. */
struct cr_error *sysv_choose_id(const char *sysctl, int id);
/* Around the call that makes it: only who makes it is its creator. */
struct cr_error *sysv_become_creator(struct restore *restore, const struct sysv_ipc *ipc);
void sysv_become_root(struct program *p, const struct sysv_ipc *ipc);
/* The call has made what it was to make. */
struct cr_error *sysv_check_id(const struct program *p, int call, const struct sysv_ipc *ipc);
/* Go on with a program of the process with this number, or of init if there is none. */
struct cr_error *sysv_run_as(struct restore *restore, int32_t pid);

/* Queues and semaphore sets of the namespace, when all processes are known. */
struct cr_error *sysv_queues_dump(struct dump *dump);
struct cr_error *sysv_semaphores_dump(struct dump *dump);
/* All of them, when all processes stand. */
struct cr_error *sysv_queues_restore(struct restore *restore);
struct cr_error *sysv_semaphores_restore(struct restore *restore);

#endif
