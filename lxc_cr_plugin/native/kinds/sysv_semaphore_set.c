/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System V semaphores (semget(2)): of the ipc namespace, whoever uses them. Who waits for them
 * enters its call again (wait.c). When they were used last is not kept, and by whom only if that process
 * is still there.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../kernel/semaphore_undo.h"
#include "../sharing.h"
#include "sysv.h"

enum {
	SEMVMX = 32767,		 /* the largest value of a semaphore */
	MOST_SEMAPHORES = 65536, /* the kernel lets no set have more */
};

struct semaphore_set {
	struct sysv_ipc ipc;
	struct list semaphores; /* struct semaphore */
	struct list undos;	/* struct undo */
};

struct semaphore {
	uint32_t value;
	int32_t pid;
};

struct undo {
	int32_t pid;
	uint32_t semaphore;
	int32_t adjustment;
};

static const struct field semaphore_fields[] = {
	FIELD_UINT(struct semaphore, value, 0, SEMVMX, "value"),
	FIELD_INT(struct semaphore, pid, 0, MAX_TASKS,
		  "who changed it last, 0: nobody who is still there"),
	FIELD_END,
};

static const struct field undo_fields[] = {
	FIELD_INT(struct undo, pid, 1, MAX_TASKS, "process"),
	FIELD_UINT(struct undo, semaphore, 0, MOST_SEMAPHORES - 1, "semaphore of the set"),
	FIELD_INT(struct undo, adjustment, -SEMVMX - 1, SEMVMX, "added to its value"),
	FIELD_END,
};

static const struct field semaphore_set_fields[] = {
	FIELDS_SYSV(struct semaphore_set),
	FIELD_ROWS(struct semaphore_set, semaphores, struct semaphore, semaphore_fields,
		   MOST_SEMAPHORES, "value, and who changed it last"),
	FIELD_ROWS(struct semaphore_set, undos, struct undo, undo_fields, 1 << 24,
		   "SEM_UNDO: what the end of a process does to which semaphore"),
	FIELD_END,
};

/* ---- dump ---- */

/* The fourth argument of semctl(2), which programs declare themselves. */
union semun {
	struct semid_ds *data;
	unsigned short *values;
};

static struct cr_error *dump_values(struct dump *dump, struct semaphore_set *set, size_t count)
{
	_cleanup_free_ unsigned short *values = calloc(count, sizeof(*values));

	if (!values)
		return error_nomem();
	if (semctl(set->ipc.id, 0, GETALL, (union semun){.values = values}) < 0)
		return error_sys("Failed to look at System V semaphore set %d", set->ipc.id);
	for (size_t i = 0; i < count; i++) {
		struct semaphore *semaphore =
			list_append(dump->image.pool, &set->semaphores, sizeof(*semaphore));

		if (!semaphore)
			return error_nomem();
		semaphore->value = values[i];
		semaphore->pid = sysv_process(dump, semctl(set->ipc.id, (int)i, GETPID));
	}
	return NULL;
}

/* A line of /proc/sysvipc/sem tells which there are. */
static struct cr_error *dump_set(struct dump *dump, const char *line)
{
	struct object *object = image_add_object(&dump->image, &sysv_semaphore_set_kind);
	struct semaphore_set *set;
	struct semid_ds data;
	int key, id;

	if (!object)
		return error_nomem();
	set = object->state;
	if (sscanf(line, "%d %d", &key, &id) != 2)
		return error_new(CR_INTERNAL, "Failed to read /proc/sysvipc/sem");
	if (semctl(id, 0, IPC_STAT, (union semun){.data = &data}) < 0)
		return error_sys("Failed to look at System V semaphore set %d", id);
	set->ipc = (struct sysv_ipc){
		.id = id,
		.key = key,
		.mode = data.sem_perm.mode & 0777,
		.uid = data.sem_perm.uid,
		.gid = data.sem_perm.gid,
		.cuid = data.sem_perm.cuid,
		.cgid = data.sem_perm.cgid,
	};
	TRY(hash_add(dump->image.pool, &dump->semaphore_sets, (uint64_t)id, 0, set));
	return dump_values(dump, set, data.sem_nsems);
}

static struct cr_error *add_undos(struct dump *dump, const struct process *process,
				  const struct kernel_undo *undo)
{
	struct semaphore_set *set = hash_find(&dump->semaphore_sets, (uint64_t)undo->set, 0);
	size_t count = set ? set->semaphores.count : 0;
	_cleanup_free_ int16_t *adjustments = calloc(count + 1, sizeof(*adjustments));

	if (!adjustments)
		return error_nomem();
	TRY(kernel_undo_adjustments(dump->undo_reader, undo, count, adjustments));
	for (size_t i = 0; i < count; i++) {
		struct undo *slot;

		if (!adjustments[i])
			continue;
		slot = list_append(dump->image.pool, &set->undos, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = (struct undo){process->pid, (uint32_t)i, adjustments[i]};
	}
	return NULL;
}

/* Threads have one list together, unless a program has gone out of its way. */
static struct cr_error *check_threads(struct dump *dump, const struct process *process)
{
	uint64_t list = process_leader(process)->kernel->undo_list;

	for_each (struct thread *, thread, &process->threads) {
		struct cr_error *error;

		if (thread->kernel->undo_list == list)
			continue;
		error = error_new(CR_UNSUPPORTED,
				  "Thread %d does not share its semaphore adjustments (SEM_UNDO) "
				  "with its process",
				  thread->tid);
		error = error_task(error, process->pid, process->stat.comm);
		error = error_object(error, "semaphore_adjustments");
		TRY(dump_refuse(dump, error_remedy(error, "Not supported yet; end the process")));
	}
	return NULL;
}

static struct cr_error *dump_undos(struct dump *dump, const struct process *process)
{
	uint64_t address = process_leader(process)->kernel->undo_list;
	struct list undos = {0};
	const struct kernel_undo *undo;

	TRY(check_threads(dump, process));
	if (!address || !sharing_is_first(process, SHARE_UNDO))
		return NULL;
	TRY(kernel_undo_read(dump->undo_reader, address, dump->image.pool, &undos));
	undo = undos.items;
	for (size_t i = 0; i < undos.count; i++)
		TRY(add_undos(dump, process, &undo[i]));
	return NULL;
}

struct cr_error *sysv_semaphores_dump(struct dump *dump)
{
	const char *line;

	TRY(sysv_table(dump, "sem", &line));
	if (!line)
		return NULL;
	for (; line; line = sysv_next_line(line))
		TRY(dump_refuse(dump, dump_set(dump, line)));
	if (!dump->undo_reader)
		TRY(kernel_undo_reader_open(dump->btf, dump->peek, &dump->undo_reader));
	for_each (struct process *, process, &dump->image.processes)
		TRY(dump_refuse(dump, dump_undos(dump, process)));
	return NULL;
}

/* ---- restart ---- */

static struct cr_error *make_set(struct restore *restore, const struct semaphore_set *set)
{
	struct program *p = restore->program;
	int call;

	TRY(sysv_choose_id("sem_next_id", set->ipc.id));
	TRY(sysv_become_creator(restore, &set->ipc));
	/* whoever used it may now; its own permissions come last */
	call = program_call(p, "make a System V semaphore set", SYS_semget, (uint64_t)set->ipc.key,
			    set->semaphores.count, IPC_CREAT | IPC_EXCL | 0666);
	sysv_become_root(p, &set->ipc);
	TRY(program_run(p));
	return sysv_check_id(p, call, &set->ipc);
}

static struct cr_error *operate(struct restore *restore, const struct semaphore_set *set,
				const struct sembuf *operations, size_t count)
{
	struct program *p = restore->program;

	TRY(program_reserve(p, 1, count * sizeof(*operations)));
	program_call(p, "operate on semaphores", SYS_semop, (uint64_t)set->ipc.id,
		     program_data(p, operations, count * sizeof(*operations)), count);
	return NULL;
}

/*
 * An operation leaves its opposite behind; one without SEM_UNDO brings the value back to zero, which
 * it has while this is done. The one that adds comes first.
 */
static struct cr_error *restore_undo(struct restore *restore, const struct semaphore_set *set,
				     const struct undo *undo)
{
	for (int32_t left = undo->adjustment; left;) {
		int32_t step = left > SEMVMX ? SEMVMX : left < -SEMVMX ? -SEMVMX : left;
		unsigned short number = (unsigned short)undo->semaphore;
		struct sembuf noted = {number, (short)-step, SEM_UNDO | IPC_NOWAIT};
		struct sembuf back = {number, (short)step, IPC_NOWAIT};
		struct sembuf both[] = {step > 0 ? back : noted, step > 0 ? noted : back};

		TRY(operate(restore, set, both, 2));
		left -= step;
	}
	return NULL;
}

static struct cr_error *restore_undos(struct restore *restore, const struct semaphore_set *set)
{
	const struct undo *undo = set->undos.items;

	for (size_t i = 0; i < set->undos.count; i++) {
		if (undo[i].semaphore >= set->semaphores.count ||
		    !image_process(&restore->image, undo[i].pid))
			return error_new(CR_IMAGE,
					 "Semaphore set %d has no semaphore %u, or no process %d",
					 set->ipc.id, undo[i].semaphore, undo[i].pid);
		TRY(sysv_run_as(restore, undo[i].pid));
		TRY(restore_undo(restore, set, &undo[i]));
	}
	return NULL;
}

/* By operations: setting values would forget the adjustments. Each says who has changed it. */
static struct cr_error *restore_values(struct restore *restore, const struct semaphore_set *set)
{
	const struct semaphore *semaphore = set->semaphores.items;

	for (size_t i = 0; i < set->semaphores.count; i++) {
		struct sembuf add = {(unsigned short)i, (short)semaphore[i].value, IPC_NOWAIT};

		if (!semaphore[i].value && !semaphore[i].pid)
			continue;
		TRY(sysv_run_as(restore, semaphore[i].pid));
		TRY(operate(restore, set, &add, 1));
	}
	return program_run(restore->program);
}

static struct cr_error *finish(const struct semaphore_set *set)
{
	struct semid_ds data = {.sem_perm = {.uid = set->ipc.uid, .gid = set->ipc.gid}};

	data.sem_perm.mode = set->ipc.mode & 0777;
	return semctl(set->ipc.id, 0, IPC_SET, (union semun){.data = &data}) < 0
		       ? error_sys("Failed to set up System V semaphore set %d", set->ipc.id)
		       : NULL;
}

struct cr_error *sysv_semaphores_restore(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		if (object->kind != &sysv_semaphore_set_kind)
			continue;
		TRY(sysv_run_as(restore, 0));
		TRY(make_set(restore, object->state));
		TRY(restore_undos(restore, object->state));
		TRY(restore_values(restore, object->state));
		TRY(finish(object->state));
	}
	return NULL;
}

const struct kind sysv_semaphore_set_kind = {
	.name = "sysv_semaphore_set",
	.doc = "System V semaphore set: id, key, owner, permissions, values, who changed them, "
	       "what "
	       "the end of a process undoes",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct semaphore_set),
	.fields = semaphore_set_fields,
};
