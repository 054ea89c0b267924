/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_DNOTIFY_H
#define CR_DNOTIFY_H

#include "../dump.h"

/* What a thread with descriptors of its own (thread->own) asks to be told is refused. */
struct cr_error *dnotify_check_thread(struct dump *dump, struct process *own);

#endif
