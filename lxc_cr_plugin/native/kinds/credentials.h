/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_CREDENTIALS_H
#define CR_CREDENTIALS_H

#include "../model.h"

struct keyrings;

const struct keyrings *credentials_keyrings(const struct thread *thread);

#endif
