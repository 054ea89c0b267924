/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unshare(2) in a thread, or clone(2) of one without CLONE_FILES or CLONE_FS. */
#include "thread_tables.h"

#include "file.h"

static const struct field thread_tables_fields[] = {
	FIELD_INT(struct thread_tables, tid, 1, MAX_TASKS, "thread id in the container"),
	FIELD_ROWS(struct thread_tables, files.descriptors, struct files_row, files_row_fields,
		   1 << 24, "its own descriptors, as those of a process"),
	FIELD_UINT(struct thread_tables, fs.umask, 0, 0777, "file mode creation mask"),
	FIELD_PATH(struct thread_tables, fs.cwd,
		   "its own working directory, empty: that of others"),
	FIELD_PATH(struct thread_tables, fs.root, "its own root directory"),
	FIELD_END,
};

const struct kind thread_tables_kind = {
	.name = "thread_tables",
	.doc = "Thread with descriptors or directories of its own",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct thread_tables),
	.fields = thread_tables_fields,
	/* filled by files.c and fs.c, for thread->own */
};
