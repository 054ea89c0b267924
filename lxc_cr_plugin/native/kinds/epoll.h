/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_EPOLL_H
#define CR_EPOLL_H

#include "../restore.h"

/* The highest number under which an epoll instance of the image watches a file, -1: there is none. */
int epoll_highest(const struct image *image);

#endif
