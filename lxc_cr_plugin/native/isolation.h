/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proof that nothing is shared with a task outside the container. */
#ifndef CR_ISOLATION_H
#define CR_ISOLATION_H

#include "dump.h"

struct cr_error *isolation_check(struct dump *dump);

#endif
