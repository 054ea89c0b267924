/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Does a path lead, as the container resolves it, to the file that the kernel says it names? Answering takes
 * some microseconds; what the survey has found out is not asked again inside the stop: a file that was renamed or
 * deleted since has another name by then.
 */
#ifndef CR_KNOWN_PATHS_H
#define CR_KNOWN_PATHS_H

#include "dump.h"

/* *leads: it does. @file: st_dev and st_ino of what it should be. */
struct cr_error *path_leads_to(struct dump *dump, const struct bytes *path, const struct stat *file,
			       bool *leads);

#endif
