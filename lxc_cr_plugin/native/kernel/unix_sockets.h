/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What no call tells of a unix socket: who its peer is, and what asking for would change. */
#ifndef CR_KERNEL_UNIX_SOCKETS_H
#define CR_KERNEL_UNIX_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>

#include "../error.h"
#include "../pool.h"
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

/* A message that waits, or a piece of a stream: struct sk_buff. */
struct kernel_unix_message {
	uint32_t unread;  /* bytes */
	bool peeked;	  /* an empty one that was looked at, which MSG_PEEK shows nobody again */
	bool credentials; /* it says who sent it: */
	int32_t pid;	  /* as the pid namespace at @level knows it, 0: not at all */
	uint32_t uid, gid;
	struct list files; /* uint64_t, struct file of the kernel: SCM_RIGHTS */
};

struct kernel_unix_sockets;

/* @peek is used until it is closed, and stays the caller's. */
struct cr_error *kernel_unix_sockets_open(const struct btf *btf, struct kernel_peek *peek,
					  struct kernel_unix_sockets **ret);
void kernel_unix_sockets_close(struct kernel_unix_sockets *sockets); /* NULL is fine */

/* Of the socket behind struct @file; @level: of pid namespaces, 0 is the first. */
struct cr_error *kernel_unix_socket_read(struct kernel_unix_sockets *sockets, uint64_t file,
					 unsigned int level, struct kernel_unix_socket *ret);

/* What waits in the socket @sock, oldest first; *ret: list of struct kernel_unix_message in @pool. */
struct cr_error *kernel_unix_queue_read(struct kernel_unix_sockets *sockets, uint64_t sock,
					unsigned int level, struct pool *pool, struct list *ret);

#endif
