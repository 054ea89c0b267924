/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_UNIX_SOCKET_H
#define CR_UNIX_SOCKET_H

#include "../dump.h"
#include "../restore.h"
#include "file.h"

struct unix_socket {
	struct file file;
	uint32_t type, peer;
	bool connected, reset;
	uint32_t shutdown;
	int32_t creator;
	uint32_t creator_uid, creator_gid;
	uint64_t receive_timeout, send_timeout; /* ns, 0: none */
	struct list options;			/* struct unix_option */
	struct list queue;			/* struct unix_message, oldest first */
	/* dump only: struct sock */
	uint64_t sock, peer_sock;
	/* restart only */
	int mate; /* our descriptor of a peer that nobody has, 0: none */
	bool linked;
};

struct unix_option {
	int32_t option, value;
};

struct unix_message {
	struct bytes data;
	bool credentials;
	int32_t pid; /* in the container; of the host until unix_queue_resolve() */
	uint32_t uid, gid;
};

extern const struct field unix_message_fields[];

/* What waits to be read, left where it is; @queued: as many messages, or pieces of a stream. */
struct cr_error *unix_queue_read(struct dump *dump, const struct descriptor *descriptor, int fd,
				 uint32_t queued, struct unix_socket *socket);
/* From the host's numbers to the container's, when all tasks are known. */
struct cr_error *unix_queue_resolve(struct dump *dump, const struct object *object);
/* Send it again, from the peer @fd. */
struct cr_error *unix_queue_fill(struct restore *restore, const struct unix_socket *socket, int fd);

#endif
