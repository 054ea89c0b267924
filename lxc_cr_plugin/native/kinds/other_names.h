/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that have lost the name by which they were opened or mapped, and have another one (a hard link). */
#ifndef CR_OTHER_NAMES_H
#define CR_OTHER_NAMES_H

#include "../dump.h"

/* *ret: another name, NULL: none is known (yet). @old: the one that it has lost. */
struct cr_error *other_name_find(struct dump *dump, const struct bytes *old,
				 const struct stat *stat, const struct bytes **ret);
/* At the end of a look, while everything runs, for a walk takes its time: look for all that were
 * asked for in vain, in one go. The next look finds them. */
struct cr_error *other_names_search(struct dump *dump);

#endif
