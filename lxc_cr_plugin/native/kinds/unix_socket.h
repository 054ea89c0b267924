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
	/* dump only: struct sock; as many messages, or pieces of a stream, wait in it */
	uint64_t sock, peer_sock;
	uint32_t queued;
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
	int32_t pid; /* in the container */
	uint32_t uid, gid;
	struct list files; /* struct unix_message_file */
};

struct unix_message_file {
	uint32_t object;
};

extern const struct kind unix_socket_kind;
extern const struct field unix_message_fields[];

/* What waits to be read, left where it is. */
struct cr_error *unix_queue_dump(struct dump *dump, struct object *object);
/* While everything runs: what is in flight in the socket @sock. */
struct cr_error *unix_queue_note(struct dump *dump, uint64_t sock);
/* Send it again, from the peer @fd. */
struct cr_error *unix_queue_fill(struct restore *restore, const struct unix_socket *socket, int fd);
/* When all queues are full: who stood for senders that have ended ends. */
struct cr_error *unix_queues_finish(struct restore *restore);

#endif
