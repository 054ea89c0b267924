/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The end of a restart: deadlines are armed, every task gets its registers, and all are let go at
 * one instant. */
#ifndef CR_RELEASE_H
#define CR_RELEASE_H

#include "restore.h"

struct cr_error *release_all(struct restore *restore);

#endif
