/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unix_sockets.h"

#include <linux/btf.h>
#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"

/* Offsets of this kernel; a struct unix_sock begins with its struct sock. */
struct layout {
	uint32_t private_data, sk, socket, queued, error, shutdown, creator, peer, level, numbers;
	uint32_t urgent; /* 0: this kernel has no MSG_OOB here */
};

struct kernel_unix_sockets {
	struct kernel_peek *peek;
	struct layout layout;
};

/* An id of a task in one pid namespace. */
struct upid {
	int32_t number;
	uint64_t namespace;
};

static const struct btf_wanted members[] = {
	{offsetof(struct layout, private_data), "file", "private_data"},
	{offsetof(struct layout, sk), "socket", "sk"},
	{offsetof(struct layout, socket), "sock", "sk_socket"},
	{offsetof(struct layout, queued), "sock", "sk_receive_queue.qlen"},
	{offsetof(struct layout, error), "sock", "sk_err"},
	{offsetof(struct layout, shutdown), "sock", "sk_shutdown"},
	{offsetof(struct layout, creator), "sock", "sk_peer_pid"},
	{offsetof(struct layout, peer), "unix_sock", "peer"},
	{offsetof(struct layout, level), "pid", "level"},
};

static struct cr_error *locate_all(const struct btf *btf, struct layout *layout)
{
	struct btf_place place;

	TRY(btf_offsets(btf, members, sizeof(members) / sizeof(members[0]), layout));
	layout->numbers = btf_pid_numbers(btf);
	if (btf_locate(btf, btf_find(btf, BTF_KIND_STRUCT, "unix_sock"), "oob_skb", &place))
		layout->urgent = place.offset;
	return NULL;
}

struct cr_error *kernel_unix_sockets_open(const struct btf *btf, struct kernel_peek *peek,
					  struct kernel_unix_sockets **ret)
{
	_cleanup_free_ struct kernel_unix_sockets *sockets = calloc(1, sizeof(*sockets));

	if (!sockets)
		return error_nomem();
	TRY(locate_all(btf, &sockets->layout));
	sockets->peek = peek;
	*ret = steal_pointer(&sockets);
	return NULL;
}

void kernel_unix_sockets_close(struct kernel_unix_sockets *sockets)
{
	free(sockets);
}

/* A pid keeps its numbers when its task is gone. */
static struct cr_error *read_creator(struct kernel_unix_sockets *sockets, uint64_t sock,
				     unsigned int level, int32_t *ret)
{
	const struct layout *layout = &sockets->layout;
	struct upid number;
	uint32_t deepest;
	uint64_t pid;

	TRY(kernel_peek(sockets->peek, sock + layout->creator, &pid, sizeof(pid)));
	if (!pid)
		return NULL;
	TRY(kernel_peek(sockets->peek, pid + layout->level, &deepest, sizeof(deepest)));
	if (deepest < level)
		return NULL;
	TRY(kernel_peek(sockets->peek, pid + layout->numbers + level * sizeof(number), &number,
			sizeof(number)));
	*ret = number.number;
	return NULL;
}

static struct cr_error *read_peer(struct kernel_unix_sockets *sockets,
				  struct kernel_unix_socket *ret)
{
	const struct layout *layout = &sockets->layout;
	uint64_t socket;

	TRY(kernel_peek(sockets->peek, ret->sock + layout->peer, &ret->peer, sizeof(ret->peer)));
	if (!ret->peer)
		return NULL;
	TRY(kernel_peek(sockets->peek, ret->peer + layout->socket, &socket, sizeof(socket)));
	ret->peer_open = socket;
	return NULL;
}

struct cr_error *kernel_unix_socket_read(struct kernel_unix_sockets *sockets, uint64_t file,
					 unsigned int level, struct kernel_unix_socket *ret)
{
	const struct layout *layout = &sockets->layout;
	struct kernel_peek *peek = sockets->peek;
	uint64_t address = 0, urgent = 0;

	*ret = (struct kernel_unix_socket){0};
	TRY(kernel_peek(peek, file + layout->private_data, &address, sizeof(address)));
	TRY(kernel_peek(peek, address + layout->sk, &ret->sock, sizeof(ret->sock)));
	TRY(kernel_peek(peek, ret->sock + layout->queued, &ret->queued, sizeof(ret->queued)));
	TRY(kernel_peek(peek, ret->sock + layout->error, &ret->error, sizeof(ret->error)));
	TRY(kernel_peek(peek, ret->sock + layout->shutdown, &ret->shutdown, sizeof(ret->shutdown)));
	if (layout->urgent)
		TRY(kernel_peek(peek, ret->sock + layout->urgent, &urgent, sizeof(urgent)));
	ret->urgent = urgent;
	TRY(read_creator(sockets, ret->sock, level, &ret->peer_pid));
	return read_peer(sockets, ret);
}
