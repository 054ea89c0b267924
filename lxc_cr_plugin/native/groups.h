/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Process groups, when everybody stands in its session. */
#ifndef CR_GROUPS_H
#define CR_GROUPS_H

#include "restore.h"

struct cr_error *groups_restore(struct restore *restore);

#endif
