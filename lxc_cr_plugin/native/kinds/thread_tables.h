/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_THREAD_TABLES_H
#define CR_THREAD_TABLES_H

#include "files.h"
#include "fs.h"

/* What is not its own is empty. */
struct thread_tables {
	int32_t tid;
	struct files files;
	struct directories fs;
};

extern const struct kind thread_tables_kind;

#endif
