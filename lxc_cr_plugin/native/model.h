/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an image holds, as it stands in memory: on the way out filled by the dump functions of the
 * kinds, on the way in by the reader. Everything lives in the image's pool.
 *
 *	image ─┬─ objects    shared things (open file descriptions, pipes, memory), before their users
 *	       └─ processes  parents before children ─── threads, the leader first
 *
 * Each process, thread and object has one state per kind that describes it.
 */
#ifndef CR_MODEL_H
#define CR_MODEL_H

#include <sys/types.h>

#include "api.h"
#include "error.h"
#include "hash.h"
#include "id_map.h"
#include "image/pages.h"
#include "image/record.h"
#include "kernel/tasks.h"
#include "pool.h"
#include "proc.h"

enum { MAX_TASKS = 4194304 }; /* PID_MAX_LIMIT */

struct descriptor;
struct file;
struct dump;
struct restore;
struct birth;
struct process;
struct thread;
struct object;

/* What clone(2) lets tasks share; the images' bits are 1 << these. */
enum share {
	SHARE_MEMORY,  /* CLONE_VM */
	SHARE_FS,      /* CLONE_FS */
	SHARE_SIGHAND, /* CLONE_SIGHAND */
	SHARE_FILES,   /* CLONE_FILES */
	SHARE_UNDO,    /* CLONE_SYSVSEM */
	SHARE_SORTS,
};

enum scope {
	SCOPE_OBJECT,  /* shared between tasks, dumped once */
	SCOPE_PROCESS, /* one for each thread group */
	SCOPE_THREAD,
	SCOPE_ZOMBIE, /* one for each child that has ended: kinds/zombie.h */
};

/* One kind of kernel state: its record, and both directions. Which functions are set depends on the
 * scope. */
struct kind {
	const char *name;
	const char *doc;
	enum scope scope;
	size_t size; /* of the state struct that fields describes */
	const struct field *fields;

	/* SCOPE_OBJECT, open files only: is this descriptor mine? The first claim in table order
	 * wins. */
	bool (*claims)(const struct descriptor *descriptor);
	/* Refuse before the stop what could not be dumped; the tasks run meanwhile. May be NULL. */
	struct cr_error *(*check_file)(struct dump *dump, const struct descriptor *descriptor);
	struct cr_error *(*check_process)(struct dump *dump, struct process *process);
	struct cr_error *(*check_thread)(struct dump *dump, struct thread *thread);

	struct cr_error *(*dump_file)(struct dump *dump, const struct descriptor *descriptor,
				      void *state);
	struct cr_error *(*dump_process)(struct dump *dump, struct process *process, void *state);
	struct cr_error *(*dump_thread)(struct dump *dump, struct thread *thread, void *state);
	/* What an open file refers to among the others, when all of them are known. */
	struct cr_error *(*dump_links)(struct dump *dump, struct object *object);

	struct cr_error *(*restore_file)(struct restore *restore, struct object *object,
					 const void *state);
	/* The file that restore_file opens by file_reopen() and nothing else, from init and at any
	 * time: many are opened in one go. NULL, as function or result: there is none. */
	const struct file *(*reopens)(const void *state);
	/* Objects whose contents are in the image (kinds/contents.h): make it and fill it, with
	 * calls of @process; leaves object->fd. */
	struct cr_error *(*restore_contents)(struct restore *restore, struct process *process,
					     struct object *object);
	/* The same for open files, when all of them are open and nobody has them yet. */
	struct cr_error *(*restore_links)(struct restore *restore, struct object *object);
	/* SCOPE_OBJECT: once more at the end, when the instant of release is known: deadlines */
	struct cr_error *(*release_file)(struct restore *restore, struct object *object,
					 const void *state);
	struct cr_error *(*restore_process)(struct restore *restore, struct process *process,
					    const void *state);
	/* SCOPE_PROCESS: when its threads stand too */
	struct cr_error *(*restore_with_threads)(struct restore *restore, struct process *process,
						 const void *state);
	/* SCOPE_PROCESS: once more at the end, when the instant of release is known: deadlines, limits */
	struct cr_error *(*restore_at_release)(struct restore *restore, struct process *process,
					       const void *state);
	struct cr_error *(*restore_thread)(struct restore *restore, struct thread *thread,
					   const void *state);
};

/* The one ordered table: within a scope its order is the order of the restart. kinds.c */
extern const struct kind *const kinds[];
unsigned int kinds_count(void);
/* NULL: no such kind. */
const struct kind *kind_by_name(const char *name);
unsigned int kind_index(const struct kind *kind);

struct object {
	uint32_t id;
	const struct kind *kind;
	void *state;
	/* one of its holders, where it can be looked at; restart: NULL when there is none */
	struct process *holder;
	int holder_fd;
	/* restart: our own descriptor of it, -1 before */
	int fd;
};

struct thread {
	struct process *process;
	uint32_t id;
	pid_t tid;			   /* in the container */
	pid_t host_tid;			   /* on this host */
	void **states;			   /* by kind index */
	struct proc_status status;	   /* restart: of the new thread, restore_status() */
	struct thread *first[SHARE_SORTS]; /* who tells of what it shares: sharing.h */
	struct process *own; /* stands for a thread with tables of its own, NULL: it has none */
	struct birth *birth; /* how a restart makes it, NULL: as a plain thread; births.h */
	/* dump only */
	struct kernel_task *kernel;
	char comm[17];
};

struct process {
	uint32_t id;
	pid_t pid;		/* in the container */
	pid_t host_pid;		/* on this host: the leader, or who stands in for a dead one */
	pid_t host_tgid;	/* on this host: how the kernel knows the process */
	struct process *parent; /* NULL: init */
	struct list children;	/* struct process * */
	struct list threads;	/* struct thread *, the leader first unless it is dead */
	void **states;		/* by kind index */
	struct memory_map *memory;
	/* in numbers of this host, or of the container at a restart: births.h */
	pid_t number, session;
	int exit_signal;
	/* dump only */
	int proc; /* /proc/PID */
	int pidfd;
	int fds;		/* /proc/PID/fd */
	struct list open_files; /* struct kernel_file, ascending */
	bool files_known;
	struct proc_stat stat;
	/* in a walk through the tree, where its descendants follow it: births.c */
	size_t place, family, next_place;
	/* restart only */
	bool has_memory;     /* it has somebody else's, by CLONE_VM */
	struct list special; /* struct vma: where execve(2) has placed the kernel's mappings */
	/* whose memory it was born with; NULL: the parent's. Dump: from whom it may have pages */
	const struct process *mother;
};

/* T0, ns; all zero in images that do not tell. */
struct image_clocks {
	uint64_t monotonic, boottime, realtime;	   /* of the host */
	int64_t monotonic_offset, boottime_offset; /* what the container's time namespace adds */
	struct bytes boot;			   /* proc_boot_id() */
};

struct image {
	struct pool *pool;
	struct list objects;   /* struct object * */
	struct list processes; /* struct process * */
	struct list zombies;   /* struct process *, which have no more than kinds/zombie.h says */
	struct list births;    /* struct birth_step: births.h */
	struct list tables; /* struct process *: all, and those that stand for threads: sharing.h */
	struct hash numbers; /* of processes, threads and groups: image_process() */
	uint32_t next_id;
	uint32_t threads;
	uint64_t vdso;	   /* fingerprint, when read */
	const char *cpu;   /* features of the processor, when read */
	struct id_map ids; /* of the container; all ids in the image are the host's */
	struct image_clocks clocks;
	struct page_store pages;
};

static inline struct thread *process_leader(const struct process *process)
{
	return ((struct thread **)process->threads.items)[0];
}

static inline bool thread_is_leader(const struct thread *thread)
{
	return thread == process_leader(thread->process);
}

/* for_each(struct process *, process, &image->processes) { ... }: over a list of pointers */
#define for_each(type, name, list)                                                                 \
	for (__typeof__(type) *name##_at = (list)->items, name = NULL;                             \
	     name##_at < (__typeof__(type) *)(list)->items + (list)->count &&                      \
	     ((name = *name##_at), true);                                                          \
	     name##_at++)

/* New members of @image with their lists and ids; NULL when memory is out. */
struct process *image_add_process(struct image *image, struct process *parent);
struct process *image_add_zombie(struct image *image, struct process *parent);
struct thread *image_add_thread(struct image *image, struct process *process);
struct object *image_add_object(struct image *image, const struct kind *kind);

/* From now on they are found by their numbers: of this host, or of the container at a restart. The
 * first of several stays. */
struct cr_error *image_number_process(struct image *image, struct process *process);
struct cr_error *image_number_group(struct image *image, struct process *member, pid_t group);
struct cr_error *image_number_thread(struct image *image, struct thread *thread, pid_t number);
/* NULL: none. Zombies are processes too, but do not live. */
struct process *image_process(const struct image *image, pid_t number);
struct process *image_living(const struct image *image, pid_t number);
struct process *image_group_member(const struct image *image, pid_t group);
struct thread *image_thread(const struct image *image, pid_t number);

/* Whether one of its objects is of this kind. */
bool image_holds(const struct image *image, const struct kind *kind);

/* The state of @kind (by its own struct), NULL when there is none. */
void *process_state(const struct process *process, const struct kind *kind);
void *thread_state(const struct thread *thread, const struct kind *kind);
/* Allocated and remembered; NULL when memory is out. */
void *process_new_state(struct image *image, struct process *process, const struct kind *kind);
void *thread_new_state(struct image *image, struct thread *thread, const struct kind *kind);

/* NULL: no such id. */
struct object *image_object(const struct image *image, uint32_t id);

/* pool_alloc()ed text. */
const char *image_text(struct image *image, const char *fmt, ...) _printf_(2, 3);

#endif
