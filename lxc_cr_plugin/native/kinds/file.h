/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all open file descriptions have in common, whatever kind they are. */
#ifndef CR_FILE_H
#define CR_FILE_H

#include "../dump.h"
#include "../restore.h"

struct file {
	uint64_t flags; /* open(2), as F_GETFL gives them */
	uint64_t position;
	struct bytes path; /* from the container's root */
	uint32_t mode;	   /* type and permissions */
	uint32_t uid, gid;
	uint64_t device, inode;
	uint64_t size, mtime;
	/* signal-driven I/O; owner is a host number until file_resolve_owner() */
	int32_t owner;
	uint32_t owner_type, owner_uid, owner_euid, signal;
};

/* Every state of a kind of open files begins with it. */
#define FIELD_FILE(s) FIELD_STRUCT(s, file, file_fields, "open file description")

extern const struct field file_fields[];

void file_dump(const struct descriptor *descriptor, struct file *file);

/* Refuse a file that its path does not lead to (deleted, renamed over, outside the container). */
struct cr_error *file_check_path(struct dump *dump, const struct descriptor *descriptor);

/* Where the object at @at is of a kind that reopens: open its file and those of the next objects in
 * the list, as many as one program takes. file_reopen() finds them open. */
struct cr_error *file_open_ahead(struct restore *restore, struct object **at);

/* For kinds whose state is a struct file, and that reopen it. */
const struct file *file_reopens(const void *state);

/*
 * Open file->path in the container with the saved flags, check that it is what it was (S_IFMT of
 * the mode, device number of a node), and leave our descriptor in object->fd.
 */
struct cr_error *file_reopen(struct restore *restore, struct object *object,
			     const struct file *file);

/* Status flags that open(2) does not take or that must come last. */
struct cr_error *file_set_flags(const struct object *object, const struct file *file);

extern const struct kind regular_kind;

/* An open file description that only a mapping of @descriptor's process keeps, @link of /proc/PID;
 * the descriptor has no number. */
struct cr_error *regular_dump_mapped(struct dump *dump, const struct descriptor *descriptor,
				     const char *link, struct object **ret);
/* Our descriptor of object @id, opened on first use in @process, whose program may run. */
struct cr_error *regular_fd(struct restore *restore, struct process *process, uint32_t id,
			    int *ret);

/* The common part of the state of any kind of open file; NULL for other objects. */
const struct file *file_of(const struct object *object);

#endif
