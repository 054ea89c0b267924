/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* State of one checkpoint, as the dump functions of the kinds see it. */
#ifndef CR_DUMP_H
#define CR_DUMP_H

#include <sys/stat.h>

#include "kernel/btf.h"
#include "kernel/dnotify.h"
#include "kernel/epolls.h"
#include "kernel/files.h"
#include "kernel/futex_hash.h"
#include "kernel/keys.h"
#include "kernel/lease_trace.h"
#include "kernel/locks.h"
#include "kernel/numa.h"
#include "kernel/open_file.h"
#include "kernel/peek.h"
#include "kernel/probe.h"
#include "kernel/ptracers.h"
#include "kernel/semaphore_undo.h"
#include "kernel/tasks.h"
#include "kernel/timers.h"
#include "kernel/tty_input.h"
#include "kernel/unix_sockets.h"
#include "kernel/vmas.h"
#include "kernel/waits.h"
#include "log.h"
#include "model.h"
#include "obstacles.h"
#include "target/stop.h"

/* Everything that can be learned of a descriptor without knowing what it is. */
struct descriptor {
	struct process *process;
	int fd;
	const struct kernel_file *kernel;
	uint64_t flags; /* open(2), with O_CLOEXEC of this descriptor */
	uint64_t position;
	struct stat stat;
	struct bytes path;
};

/* kinds/sysv_shared_memory.c */
struct sysv_segments {
	bool read;
	struct list list; /* struct known_segment * */
	struct hash by_id;
};

/* kinds/memory_flags.c: VM_ flags whose places differ from kernel to kernel; 0: there is none. */
struct found_flags {
	bool looked;
	uint64_t droppable, sealed;
};

struct dump {
	const struct cr_checkpoint_options *options;
	struct log log;
	struct image image;
	struct stop_set stopped;
	bool running; /* the tasks are not stopped: only check functions may look */

	struct btf *btf;
	struct kernel_peek *peek;
	struct kernel_reader *kernel;
	struct kernel_reader *kernel_container; /* reads no tasks outside: in the stop */
	struct kernel_id namespace;		/* init's, as a survey has seen it */
	struct kernel_bits bits;
	struct kernel_landlock landlock;
	struct kernel_futex_layout futex_layout;
	struct kernel_key_layout key_layout;
	struct kernel_ptracer_layout ptracer_layout;
	struct list ptracers; /* struct kernel_ptracer, of all processes */
	struct kernel_vma_program *vma_program;
	struct kernel_file_program *file_program;
	struct hash attached;	  /* processes from outside that are left out: attached.c */
	struct list kernel_tasks; /* struct kernel_task, ascending by pid */
	struct kernel_timer_reader *timer_reader; /* NULL until there is a timer */
	struct kernel_wait_reader *wait_reader;	  /* NULL until somebody sleeps with an end */
	struct list kernel_waits;		  /* struct kernel_wait, by tid: before the stop */
	struct list waits;			  /* struct running_wait: wait.c */
	struct list kernel_timers;		  /* struct kernel_timer, of one process: */
	uint64_t timers_first;			  /* the list that they are of; 0: none */
	struct hash read_statuses;		  /* task_status.c */
	struct cr_clocks clocks;

	struct thread *init;	  /* leader of the container's init */
	int root;		  /* its root directory, O_PATH: paths in the image start there */
	ino_t host_namespaces[9]; /* of this process when it began */
	ino_t namespaces[9];	  /* of init: namespace_names[] */
	void *files;		  /* tsearch(3) tree of open file descriptions: file.c */
	struct process *flight;	  /* has what only messages hold, NULL: nothing: in_flight.c */
	struct list pipes;	  /* struct noted_pipe: outsiders.c */
	void *pipe_ends;	  /* tsearch(3) tree of the first end of each pipe: pipe.c */
	void *known_paths;	  /* tsearch(3) tree: known_paths.c */
	struct kernel_locks *kernel_locks; /* NULL: nobody has locked anything yet */
	bool locks_by_proc; /* this kernel does not describe its locks: locks_shown.c */
	bool lease_trace_tried;
	struct lease_trace *lease_trace;	     /* NULL until it is needed, or cannot be had */
	struct kernel_dnotify *kernel_dnotify;	     /* NULL until somebody watches a directory */
	struct hash notices;			     /* kinds/dnotify.c */
	struct kernel_open_files *kernel_open_files; /* NULL: a mapping keeps no lock */
	struct list locked_files;		     /* struct noted_file: locks.c */
	struct hash locked_inodes;		     /* those that concern us: locks.c */
	struct list lease_waiters;		     /* struct lease_waiter, before the stop */
	void *contents;		  /* tsearch(3) tree of objects by device and inode: contents.c */
	uint64_t contents_bytes;  /* of them, as a survey has seen them */
	struct hash filesystems;  /* by device: backing.c */
	struct hash other_names;  /* by device and inode: other_names.c */
	struct list wanted_names; /* struct other_name * */
	struct hash given_names;  /* struct bytes, by address: kinds/memory_names.c */
	struct found_flags found_flags;
	struct kernel_epolls *kernel_epolls; /* NULL until there is an epoll instance */
	struct hash seccomp_filters;	     /* by contents: kinds/seccomp_filter.c */
	struct hash seccomp_chains;	     /* objects, by the kernel's address of the newest */
	int posix_queues; /* their file system, -1: not mounted: kinds/ipc_namespace.c */
	uint64_t no_tsc;  /* the kernel's TIF_NOTSC: kinds/thread.c; 0: not known yet */
	void *keys, *session_keyrings; /* tsearch(3) trees: kinds/key.c, keyrings.c */
	void *core_cookies;	       /* tsearch(3) tree: kinds/core_group.c */
	uint32_t core_groups;
	struct kernel_tty_reader *tty_reader;	/* NULL until there is a terminal */
	struct hash ttys;			/* by device: kinds/tty.c */
	struct hash tty_inputs;			/* struct tty_input: kinds/tty_input.c */
	struct kernel_numa_reader *numa_reader; /* NULL until there is a policy */
	struct kernel_undo_reader *undo_reader; /* NULL until there is a semaphore */
	struct hash semaphore_sets;		/* struct semaphore_set, by id */
	struct sysv_segments sysv_segments;
	struct kernel_unix_sockets *kernel_sockets; /* NULL until there is a unix socket */
	struct list unix_sockets; /* struct object *, in order: kinds/unix_socket.c */
	bool has_sockets;	  /* a descriptor of one was seen */
	uint32_t open_files;
	struct obstacles obstacles;
};

/* An obstacle was met: it is noted, and NULL returned, while only checking; else it is the error. */
struct cr_error *dump_refuse(struct dump *dump, struct cr_error *error);

/* The object behind a descriptor: found or dumped now. file.c */
struct cr_error *file_object(struct dump *dump, struct process *process, int fd,
			     struct object **ret, bool *cloexec);
/* The object of an open file description that was met, by the kernel's address; NULL: none. file.c */
struct object *file_find(const struct dump *dump, uint64_t file);
/* One that was not met yet, by a descriptor of @process. file.c */
struct cr_error *file_adopt(struct dump *dump, struct process *process,
			    const struct kernel_file *file, struct object **ret);
/* From now on it is found so. file.c */
struct cr_error *file_add(struct dump *dump, uint64_t file, struct object *object);
/* The numbers of all descriptors of @process, ascending: list of int. file.c */
struct cr_error *file_numbers(struct dump *dump, struct process *process, struct list *ret);
/* Look at one descriptor. file.c */
struct cr_error *descriptor_look(struct dump *dump, struct process *process, int fd,
				 struct descriptor *ret);
struct cr_error *file_check(struct dump *dump, struct process *process, int fd);

/* A descriptor of ours for the same open file description. */
struct cr_error *descriptor_get(const struct descriptor *descriptor, int *ret);

/* The same for a file of @process that can be read, found by the locks of its inode: it has a lease,
 * and must not be opened. file.c */
struct cr_error *descriptor_borrow(struct dump *dump, struct process *process, uint64_t locks,
				   int *ret);

/* "fd 7 (/var/log/x)" for messages. */
const char *descriptor_name(struct dump *dump, const struct descriptor *descriptor);

/* What the kernel knows about thread @tid; NULL: not seen. */
struct kernel_task *dump_kernel_task(struct dump *dump, pid_t tid);

#endif
