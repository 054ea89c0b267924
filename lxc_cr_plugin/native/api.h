/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything that crosses the border between the engine and Python. The C compiler includes this
 * file and cffi's cdef() gets the same text without its preprocessor lines, so neither can drift
 * from the other. Sizes are bytes, times nanoseconds, pids those of the host unless said.
 */
#ifndef CR_API_H
#define CR_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One code per decision that a caller can take. */
enum cr_code {
	CR_OK = 0,
	CR_SYSTEM = 1,	    /* a system call failed; errnum says how */
	CR_UNSUPPORTED = 2, /* an object that cannot be dumped or restored (yet) */
	CR_ISOLATION = 3,   /* shared with a process outside the container */
	CR_GONE = 4,	    /* a task died under our hands */
	CR_IMAGE = 5,	    /* the image is damaged, newer than this engine, or lies */
	CR_HOST = 6,	    /* this host cannot do it: kernel feature, limit, missing file */
	CR_CANCELLED = 7,   /* the supervisor went away or asked to stop */
	CR_MEMORY = 8,
	CR_INTERNAL = 9,
};

struct cr_error {
	int code;   /* enum cr_code */
	int errnum; /* positive errno, 0 when none */
	int pid;    /* as the container sees it, 0 when no process is concerned */
	const char *comm;
	const char *object; /* kind concerned, for machines; may be NULL */
	const char *message;
	const char *remedy; /* what to do about it; may be NULL */
};

void cr_error_free(struct cr_error *error);

/* Levels are Python's: (level + 1) * 10. */
enum cr_level { CR_DEBUG = 0, CR_INFO = 1, CR_WARNING = 2, CR_ERROR = 3 };

/*
 * What is said inside the stop waits here until it is told: in memory that is shared with whoever listens,
 * so that it survives an engine that is killed there. A line is its level, one byte, and a text with NUL.
 */
enum { CR_HELD_ROOM = 67108864 }; /* of which only what is used is ever touched */

struct cr_held_lines {
	uint64_t used; /* bytes of text */
	uint64_t told; /* of these: they have been heard */
	uint64_t lost; /* lines for which there was no room */
	char text[CR_HELD_ROOM];
};

/*
 * What the engine has to say while it works; never called inside the stop.
 * step: 'log' lines come with level and text; 'progress' with stage, done and total (bytes or
 * items); 'obstacle' with an error that check or checkpoint found (borrowed for the call).
 */
struct cr_listener {
	void *context;
	int lowest_level; /* lines below it are not wanted, and cost nothing */
	void (*log)(void *context, int level, const char *text);
	struct cr_held_lines *held; /* NULL: what is said inside the stop is not kept */
	void (*progress)(void *context, const char *stage, uint64_t done, uint64_t total);
	void (*obstacle)(void *context, const struct cr_error *error);
	/* a restart holds this init, which has not executed anything yet; not 0 calls it off */
	int (*seized)(void *context, int init_pid);
	/* the container stands as the runtime has made it, init before its first instruction: its
	 * files and mounts may be completed; not 0: that failed */
	int (*taken_over)(void *context, int init_pid);
};

struct cr_clocks {
	uint64_t monotonic;
	uint64_t boottime;
	uint64_t realtime;
};

struct cr_checkpoint_options {
	int init_pid;	     /* the container's init */
	const char *cgroup;  /* directory of the cgroup that holds all its tasks */
	const char *freezer; /* its directory in the v1 freezer or v2 hierarchy; NULL: none */
	bool freezer_is_v2;
	uint64_t deleted_file_limit; /* bytes of a deleted file that go into the image; 0: any */
	bool drop_attached;	     /* leave out who came in by lxc-attach, instead of refusing */
	int image_fd;		   /* directory that gets objects.cbor, state.cbor, pages, files/ */
	bool ignore_outside_locks; /* note locks of processes outside instead of refusing */
	bool stop;     /* keep everything stopped until verdict_fd says C, then end the container */
	bool files;    /* say P and wait for R, then stop; say S, and keep everything stopped until
			 verdict_fd says F at least; files in tmpfs that have a name are saved by
			 whoever says that */
	int notice_fd; /* one byte each: P, about to stop; S, all tasks stand; W, all files are
			   durable; -1: nobody listens */
	int verdict_fd; /* R: ready to capture; F: the files are captured; with stop: C, end the
			   container; all else: give up, let it run on */
	const char
		*fault; /* test hook: "STEP" dies with SIGKILL there, "STEP!" fails there, "STEP~MS"
			     waits there; NULL */
};

struct cr_checkpoint_result {
	struct cr_clocks clocks; /* T0 */
	uint64_t downtime;   /* from the first stopped task to the last one released; 0 with stop */
	uint64_t stopping;   /* of that: until all tasks stood */
	uint64_t collecting; /* of that: until all state was in memory */
	uint64_t capturing;  /* of that: waited for the files after that */
	uint64_t writing;    /* afterwards: encode, write, fsync */
	uint32_t processes;
	uint32_t threads;
	uint32_t files;
	uint64_t pages; /* stored, in pages of 4096 bytes */
};

/* What is left to a lease that is being broken. */
enum cr_lease_policy {
	CR_LEASE_REMAINING = 0, /* what was left, and lease_extra */
	CR_LEASE_HOLDER = 1,	/* at least what a new break would give it */
	CR_LEASE_BREAKER = 2,	/* nothing */
};

/* How much of the time between T0 and R the container is to notice. */
enum cr_time_policy {
	CR_TIME_CONTINUE = 0, /* nothing, but on the wall clock */
	CR_TIME_WALL = 1,     /* all of it */
};

/* The same for one lease. */
struct cr_lease_choice {
	uint32_t object; /* its open file description */
	int policy;	 /* enum cr_lease_policy */
	uint64_t extra;
};

struct cr_restart_options {
	int image_fd;
	int request_fd; /* fifo, read: the runtime's hook writes the host pid of the init to take
			      over, and \n */
	int reply_fd;	/* fifo, write: "go\n" once that init is seized, "abort\n" else */
	int supervisor_fd; /* a byte: it starts the runtime; end of file: it has died; -1: there is none */
	int ready_fd; /* one byte R is written when the image stands in memory and the runtime may
			 start */
	const char *cgroup_hint; /* name the init's cgroup path must contain; NULL: any */
	uint64_t timeout;	 /* for the runtime to come to its hook and execute init */
	int lease_policy;	 /* enum cr_lease_policy */
	uint64_t lease_extra;
	const struct cr_lease_choice *lease_choices; /* before lease_policy */
	size_t lease_choices_count;
	int time_policy; /* enum cr_time_policy */
	const char *fault;
};

struct cr_restart_result {
	int init_pid;
	uint64_t loading;  /* read and check the records */
	uint64_t building; /* from the hook's call until all tasks stood ready */
	uint64_t releasing;
	uint64_t released; /* R: CLOCK_MONOTONIC */
	uint64_t late;	   /* how far the container's clocks have gone on: R could not be kept */
	uint32_t processes;
	uint32_t threads;
	uint32_t files;
	uint64_t pages;
};

/* Obstacles go to listener->obstacle; an error is returned only when the look itself failed. */
struct cr_error *cr_check(const struct cr_checkpoint_options *options,
			  const struct cr_listener *listener, uint32_t *obstacles);

struct cr_error *cr_checkpoint(const struct cr_checkpoint_options *options,
			       const struct cr_listener *listener,
			       struct cr_checkpoint_result *result);

struct cr_error *cr_restart(const struct cr_restart_options *options,
			    const struct cr_listener *listener, struct cr_restart_result *result);

/* Read and check an image without touching anything. Errors are CR_IMAGE or CR_SYSTEM. */
struct cr_error *cr_image_check(int image_fd, const struct cr_listener *listener);

/*
 * For snapshots of files; these return a negative errno when they fail.
 * cr_open_beneath: openat2(2) that crosses neither symbolic links nor mounts, and stays below root_fd.
 * cr_write_back: write the dirty pages of a file, so that every store into a mapping of it is seen in
 * its ctime from now on. cr_sync_filesystem: syncfs(2). cr_descriptor_of: a copy of a descriptor of
 * another process, by which a leased file is read without breaking the lease. cr_exchange: two names
 * change what they are names of, at once.
 * cr_read_all: read the start of each of these files into buffer, one behind the other; lengths gets
 * how long each is, a negative errno for one that cannot be read. -ENOBUFS: more than room bytes.
 */
int cr_open_beneath(int root_fd, const char *path, int flags, int mode);
int cr_write_back(int fd);
int cr_sync_filesystem(int fd);
int cr_descriptor_of(int pid, int fd);
int cr_exchange(int one_dir, const char *one, int other_dir, const char *other);
int cr_read_all(const int *fds, size_t count, size_t longest, uint8_t *buffer, size_t room,
		int32_t *lengths);

/*
 * Count how often a process below cgroup_fd, a directory of cgroup v2, writes a setting of sysctl(8), for
 * as long as link_fd is open. counter_fd, for mmap(2), holds the number, a uint64_t; it goes up before the
 * setting becomes another one. A negative errno when that fails: on kernels before 5.7, without
 * CONFIG_CGROUP_BPF, or where somebody forbids it.
 */
int cr_count_setting_writes(int cgroup_fd, int *counter_fd, int *link_fd);

/* Paths in a file tree have at least one byte less; the kernel itself takes 4096 at once. */
enum { CR_LONGEST_PATH = 16384 };

/* One path as lstat(2) tells it; times in nanoseconds since 1970. */
struct cr_tree_entry {
	uint64_t path; /* offset in paths */
	uint64_t inode, device, rdev, size, blocks;
	int64_t mtime; /* seconds: programs may set any, and in ns not all would fit */
	int64_t ctime; /* ns */
	uint32_t mode, uid, gid, nlink;
	uint32_t mtime_ns; /* behind the seconds */
};

/* All paths of a file tree, relative to its root, each with a NUL behind it; a directory comes
 * before what is in it. */
struct cr_tree_look {
	struct cr_tree_entry *entries;
	size_t count, entries_room;
	char *paths;
	size_t paths_size, paths_room;
	size_t last; /* the entry that was looked into when it failed */
};

/*
 * cr_tree_look: look at everything below root_fd that is on its file system; a negative errno when
 * that fails. cr_tree_forget: afterwards, in any case. cr_tree_changed: which entries of now before
 * does not have like that, or have a ctime not before since; how many, their numbers in ret, which
 * has room for all.
 */
int cr_tree_look(int root_fd, struct cr_tree_look *ret);
void cr_tree_forget(struct cr_tree_look *look);
int cr_tree_changed(const struct cr_tree_look *now, const struct cr_tree_look *before,
		    int64_t since, uint32_t *ret);

/* Memory of which the first part was touched, not inherited by children; used is what is taken. */
struct cr_arena {
	char *data;
	uint64_t size, used;
};

struct cr_tree_extent {
	uint64_t begin, size;
};

/*
 * Where in the arena the content of an entry is: its extents, then its extended attributes (a name and
 * its NUL, four bytes with the size of the value, the value), then the data of each extent. The target
 * of a symbolic link is one extent. at UINT64_MAX: it was skipped.
 */
struct cr_tree_content {
	uint64_t at;
	uint32_t extents, xattrs_size;
};

/*
 * cr_arena_make: for at most size bytes, warm of them touched; a negative errno when that fails.
 * cr_arena_drop: give it back. cr_tree_take: read what all entries of a look hold into the arena, by
 * several threads, regular files with an inode number among skipped left out; ret has room for all. A
 * negative errno when that fails at the entry number failed: ENOSPC when the arena is too small,
 * ESTALE when it is not as the look has seen it.
 */
int cr_arena_make(struct cr_arena *arena, size_t size, size_t warm);
void cr_arena_drop(struct cr_arena *arena);
int cr_tree_take(int root_fd, const struct cr_tree_look *look, const uint64_t *skipped,
		 size_t skipped_count, struct cr_arena *arena, struct cr_tree_content *ret,
		 size_t *failed);

/*
 * Mounts by descriptor; these return a negative errno when they fail, the first but one a descriptor.
 * cr_enter_mounts: setns(2) into the mount namespace of a process, and into its user namespace when asked
 * to, and chroot(2) into the open directory. cr_open_in_root: O_PATH, through no
 * symbolic link, with root_fd as the root. cr_mount_id: in which mount it lies. cr_mount_clone: a mount without those below it, attached
 * nowhere. cr_filesystem_open, _option (value NULL: a flag), _mount: fsopen(2), fsconfig(2),
 * fsmount(2). cr_mount_set: MOUNT_ATTR_* to set and clear, MS_SHARED and so on or 0.
 * cr_mount_attach: put a mount on the open place.
 */
int cr_enter_mounts(int pidfd, int root_fd, bool with_user);
int cr_open_in_root(int root_fd, const char *path);
int cr_mount_id(int fd, uint64_t *ret);
int cr_mount_clone(int fd);
int cr_filesystem_open(const char *type);
int cr_filesystem_option(int fd, const char *key, const char *value);
int cr_filesystem_mount(int fd);
int cr_mount_set(int fd, uint64_t set, uint64_t clear, uint64_t propagation);
int cr_mount_attach(int mount_fd, int place_fd);

/* The steps of a checkpoint and of a restart, in order, for fault injection; NULL after the last
 * one. */
const char *cr_checkpoint_step(unsigned int index);
const char *cr_restart_step(unsigned int index);

/* Kinds this engine knows, in the order of the table; NULL after the last one. */
const char *cr_kind_name(unsigned int index);

/* Field names, types and docs of a kind as a JSON text for cr_text_free(); NULL: no such kind. */
char *cr_kind_fields(unsigned int index);
void cr_text_free(char *text);

#endif
