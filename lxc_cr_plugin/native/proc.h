/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading /proc of one task: one directory descriptor, so that a recycled pid is never mistaken for
 * the task. */
#ifndef CR_PROC_H
#define CR_PROC_H

#include <sys/types.h>

#include "error.h"
#include "pool.h"

/* O_PATH descriptor of /proc/PID (or /proc/PID/task/TID when @tid differs). CR_GONE when there is
 * none. */
struct cr_error *proc_open(pid_t pid, pid_t tid, int *ret);

/* A whole file as text with a NUL behind it; *len may be NULL. */
struct cr_error *proc_read(int dir, const char *name, struct pool *pool, char **ret, size_t *len);

/* The same for /proc/TID, for the files that /proc/PID/task/TID does not have. */
struct cr_error *proc_read_of(pid_t tid, const char *name, struct pool *pool, char **ret);

/* Where a link points to. */
struct cr_error *proc_link(int dir, const char *name, struct pool *pool, struct bytes *ret);

struct proc_stat {
	char comm[17];
	char state;
	int ppid, pgrp, session, tty_nr, tpgid; /* host numbers */
	int exit_signal;
	uint64_t start_time; /* clock ticks after boot */
	uint64_t start_code, end_code, start_stack;
	uint64_t start_data, end_data, start_brk;
	uint64_t arg_start, arg_end, env_start, env_end;
};

struct cr_error *proc_stat(int dir, struct proc_stat *ret);
/* "process 12 of the host (strace)" for messages. */
const char *proc_name(pid_t pid, struct pool *pool);

struct proc_status {
	uint32_t umask;
	int tgid; /* host number */
	int tracer;
	int ns_tgid, ns_pid, ns_pgid, ns_sid; /* as its own pid namespace numbers them */
	unsigned int pid_levels;	      /* how many pid namespaces deep */
	uint32_t uid[4], gid[4]; /* real, effective, saved, file system; host numbers */
	struct list groups;	 /* uint32_t */
	uint64_t cap_inheritable, cap_permitted, cap_effective, cap_bounding, cap_ambient;
	uint32_t no_new_privs, seccomp, seccomp_filters;
	uint32_t thp_disabled;
	uint64_t signals_pending, signals_shared_pending;
	uint64_t rss_anon; /* bytes */
};

struct cr_error *proc_status(int dir, struct pool *pool, struct proc_status *ret);

/* Is a signal pending that is caught and not blocked? One for the process counts for each thread. */
struct cr_error *proc_handler_is_due(int dir, bool *ret);

/* Its proportional share of anonymous memory, bytes. The kernel walks its page tables for that. */
struct cr_error *proc_anonymous_share(int dir, uint64_t *ret);

/* One line of /proc/PID/maps. */
struct proc_map {
	uint64_t start, end, offset;
	uint64_t inode;
	uint32_t major, minor;
	bool read, write, execute, shared;
	struct bytes name; /* path, [heap], [anon:NAME], or empty */
};

/* *ret: list of struct proc_map. */
struct cr_error *proc_maps(int dir, struct pool *pool, struct list *ret);

/* What no other boot of any host has. */
struct cr_error *proc_boot_id(struct pool *pool, struct bytes *ret);

/* This process may have as many descriptors as the system lets it: the soft limit of open files to the hard one. */
void proc_raise_own_limit(void);

/* Numbers that are the names of a directory (fd, task, fdinfo), ascending: list of int. */
struct cr_error *proc_numbers(int dir, const char *name, struct pool *pool, struct list *ret);

#endif
