/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory and files whose contents are in the image, because no path leads to them or none will:
 * shared anonymous memory, memfds, deleted files, files in a tmpfs. Each is one object, whoever has
 * it mapped or open.
 */
#ifndef CR_CONTENTS_H
#define CR_CONTENTS_H

#include <sys/stat.h>

#include "../dump.h"
#include "../restore.h"

struct contents {
	uint64_t size;	    /* bytes */
	uint64_t huge_page; /* bytes; 0: ordinary pages */
	struct list extents;
	/* dump only */
	dev_t device;
	ino_t inode;
	bool lent; /* it is read by a task's own description, whose position must stay */
};

/* The state of every such kind begins with it. */
#define FIELD_CONTENTS(s) FIELD_STRUCT(s, contents, contents_fields, "size and pages")

extern const struct field contents_fields[];

/* NULL for other objects. */
struct contents *contents_of(const struct object *object);

/* Where a thing was met: a link of /proc/PID that leads to it ("fd/7"). */
struct sight {
	struct process *process;
	const char *link;
	struct bytes path; /* what the link says */
	struct stat stat;
	uint64_t locks; /* struct file_lock_context of its inode; 0: nobody ever locked it */
};

/* Open what becomes @contents for reading. Nobody opens a file that has a lease, which would break it:
 * then it is a task's own description (contents->lent). */
struct cr_error *sight_open(struct dump *dump, const struct sight *sight, struct contents *contents,
			    int *ret);

/*
 * What to open at a restart instead of @sight: a path, or an object with the contents. Refuses what
 * will be neither: the message says why, the caller says of what.
 */
struct backing {
	struct bytes path;
	uint32_t object; /* 0: the path leads there */
};

struct cr_error *backing_find(struct dump *dump, const struct sight *sight, struct backing *ret);

/* The object of @sight: found, or made and to be filled (*fresh). */
struct cr_error *contents_object(struct dump *dump, const struct kind *kind,
				 const struct stat *stat, struct object **ret, bool *fresh);
/* Copy what @fd holds; in a survey only note how much that would be. */
struct cr_error *contents_copy(struct dump *dump, struct contents *contents, int fd,
			       const struct stat *stat);
struct cr_error *contents_validate(const struct image *image, const struct object *object);

/* ---- restart ---- */

/* Our descriptor of object @id, made and filled on first use by @process: O_PATH, to be opened. */
struct cr_error *contents_fd(struct restore *restore, struct process *process, uint32_t id,
			     int *ret);
/* The same opened anew, an open file description of its own with these open(2) flags. */
struct cr_error *contents_open(struct restore *restore, struct process *process, uint32_t id,
			       uint64_t flags, int *ret);
/*
 * Keep @fd's file as that of @object, not open: a program that is executed from it suffers nobody who
 * could write, and a lease on it nobody else at all.
 */
struct cr_error *contents_keep(struct object *object, int fd);
/* Fill what @process has mapped at @address: so its pages are charged to the container. */
struct cr_error *contents_fill_mapped(struct restore *restore, struct process *process,
				      const struct contents *contents, uint64_t address);
/* Fill a file on a disk. */
struct cr_error *contents_fill_file(struct restore *restore, const struct contents *contents,
				    int fd);

#endif
