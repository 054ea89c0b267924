/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What no call tells of a unix socket: who its peer is, and what asking for would change. */
#ifndef CR_KERNEL_UNIX_SOCKETS_H
#define CR_KERNEL_UNIX_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>

#include "../error.h"
#include "btf.h"
#include "peek.h"

struct kernel_unix_socket {
	uint64_t sock, peer; /* struct sock: identities; peer 0: it has none */
	bool peer_open;	     /* somebody has the peer open */
	uint32_t queued;     /* messages, or pieces of a stream, that wait to be read */
	int32_t error;	     /* what SO_ERROR would tell, and forget */
	uint8_t shutdown;    /* RCV_SHUTDOWN 1, SEND_SHUTDOWN 2 */
	bool urgent;	     /* MSG_OOB waits */
	int32_t peer_pid;    /* SO_PEERCRED, as the pid namespace at @level knows it; 0: none */
};

struct kernel_unix_sockets;

/* @peek is used until it is closed, and stays the caller's. */
struct cr_error *kernel_unix_sockets_open(const struct btf *btf, struct kernel_peek *peek,
					  struct kernel_unix_sockets **ret);
void kernel_unix_sockets_close(struct kernel_unix_sockets *sockets); /* NULL is fine */

/* Of the socket behind struct @file; @level: of pid namespaces, 0 is the first. */
struct cr_error *kernel_unix_socket_read(struct kernel_unix_sockets *sockets, uint64_t file,
					 unsigned int level, struct kernel_unix_socket *ret);

#endif
