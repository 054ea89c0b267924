/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unix_sockets.h"

#include <linux/btf.h>
#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"

/* Offsets of this kernel; a struct unix_sock begins with its struct sock. */
struct layout {
	uint32_t private_data, sk, socket, queued, error, shutdown, creator, peer, level, numbers,
		queue;
	uint32_t urgent; /* 0: this kernel has no MSG_OOB here */
	/* in struct sk_buff, and up to where it is read */
	uint32_t next, control, len, size;
	/* in what unix sockets keep in its control buffer, and in struct scm_fp_list */
	uint32_t pid, uid, gid, rights, consumed, count, files;
	struct btf_place peeked;
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
	{offsetof(struct layout, queue), "sock", "sk_receive_queue"},
	{offsetof(struct layout, next), "sk_buff", "next"},
	{offsetof(struct layout, control), "sk_buff", "cb"},
	{offsetof(struct layout, len), "sk_buff", "len"},
	{offsetof(struct layout, pid), "unix_skb_parms", "pid"},
	{offsetof(struct layout, uid), "unix_skb_parms", "uid"},
	{offsetof(struct layout, gid), "unix_skb_parms", "gid"},
	{offsetof(struct layout, rights), "unix_skb_parms", "fp"},
	{offsetof(struct layout, consumed), "unix_skb_parms", "consumed"},
	{offsetof(struct layout, count), "scm_fp_list", "count"},
	{offsetof(struct layout, files), "scm_fp_list", "fp"},
};

static uint32_t end_of(const struct layout *layout)
{
	uint32_t control = layout->control + layout->consumed + (uint32_t)sizeof(uint32_t);
	uint32_t len = layout->len + (uint32_t)sizeof(uint32_t);
	uint32_t end = control > len ? control : len;
	uint32_t peeked = layout->peeked.offset + layout->peeked.size;

	return end > peeked ? end : peeked;
}

static struct cr_error *locate_all(const struct btf *btf, struct layout *layout)
{
	struct btf_place place;

	TRY(btf_offsets(btf, members, sizeof(members) / sizeof(members[0]), layout));
	layout->numbers = btf_pid_numbers(btf);
	if (btf_locate(btf, btf_find(btf, BTF_KIND_STRUCT, "unix_sock"), "oob_skb", &place))
		layout->urgent = place.offset;
	TRY(btf_require(btf, "sk_buff", "peeked", &layout->peeked));
	layout->size = end_of(layout);
	return layout->size > PEEK_MAX || layout->next || layout->peeked.hop_count
		       ? error_new(CR_HOST, "struct sk_buff is another one here")
		       : NULL;
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

/* Of struct pid, which keeps its numbers when its task is gone. */
static struct cr_error *read_number(struct kernel_unix_sockets *sockets, uint64_t pid,
				    unsigned int level, int32_t *ret)
{
	const struct layout *layout = &sockets->layout;
	struct upid number;
	uint32_t deepest;

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
	uint64_t address = 0, urgent = 0, creator;

	*ret = (struct kernel_unix_socket){0};
	TRY(kernel_peek(peek, file + layout->private_data, &address, sizeof(address)));
	TRY(kernel_peek(peek, address + layout->sk, &ret->sock, sizeof(ret->sock)));
	TRY(kernel_peek(peek, ret->sock + layout->queued, &ret->queued, sizeof(ret->queued)));
	TRY(kernel_peek(peek, ret->sock + layout->error, &ret->error, sizeof(ret->error)));
	TRY(kernel_peek(peek, ret->sock + layout->shutdown, &ret->shutdown, sizeof(ret->shutdown)));
	if (layout->urgent)
		TRY(kernel_peek(peek, ret->sock + layout->urgent, &urgent, sizeof(urgent)));
	ret->urgent = urgent;
	TRY(kernel_peek(peek, ret->sock + layout->creator, &creator, sizeof(creator)));
	TRY(read_number(sockets, creator, level, &ret->peer_pid));
	return read_peer(sockets, ret);
}

/* ---- what waits ---- */

static bool was_peeked(const struct layout *layout, const uint8_t *raw)
{
	uint32_t word = 0;

	memcpy(&word, raw + layout->peeked.offset, layout->peeked.size);
	return word >> layout->peeked.bit & 1;
}

static struct cr_error *read_rights(struct kernel_unix_sockets *sockets, uint64_t rights,
				    struct pool *pool, struct list *ret)
{
	enum { MOST = 253, STEP = PEEK_MAX / sizeof(uint64_t) };
	uint64_t at = rights + sockets->layout.files;
	int16_t count;

	if (!rights)
		return NULL;
	TRY(kernel_peek(sockets->peek, rights + sockets->layout.count, &count, sizeof(count)));
	if (count < 0 || count > MOST)
		return error_new(CR_GONE, "A queue changed while it was read");
	ret->items = pool_calloc(pool, (size_t)count + 1, sizeof(uint64_t));
	if (!ret->items)
		return error_nomem();
	for (size_t left; (left = (size_t)count - ret->count); ret->count += left) {
		left = left < STEP ? left : STEP;
		TRY(kernel_peek(sockets->peek, at + ret->count * sizeof(uint64_t),
				(uint64_t *)ret->items + ret->count, left * sizeof(uint64_t)));
	}
	return NULL;
}

static struct cr_error *read_message(struct kernel_unix_sockets *sockets, const uint8_t *raw,
				     unsigned int level, struct pool *pool,
				     struct kernel_unix_message *ret)
{
	const struct layout *layout = &sockets->layout;
	const uint8_t *control = raw + layout->control;
	uint64_t pid = u64_at(control, layout->pid);

	ret->unread = u32_at(raw, layout->len) - u32_at(control, layout->consumed);
	ret->peeked = was_peeked(layout, raw);
	ret->credentials = pid;
	ret->uid = u32_at(control, layout->uid);
	ret->gid = u32_at(control, layout->gid);
	TRY(read_number(sockets, pid, level, &ret->pid));
	return read_rights(sockets, u64_at(control, layout->rights), pool, &ret->files);
}

struct cr_error *kernel_unix_queue_read(struct kernel_unix_sockets *sockets, uint64_t sock,
					unsigned int level, struct pool *pool, struct list *ret)
{
	enum { MOST_MESSAGES = 1 << 20 };
	uint64_t head = sock + sockets->layout.queue, node;

	/* the head of the list begins as its members do */
	TRY(kernel_peek(sockets->peek, head, &node, sizeof(node)));
	while (node != head) {
		struct kernel_unix_message *message = list_append(pool, ret, sizeof(*message));
		uint8_t raw[PEEK_MAX];

		if (!message)
			return error_nomem();
		if (ret->count > MOST_MESSAGES)
			return error_new(CR_GONE, "A queue changed while it was read");
		TRY(kernel_peek(sockets->peek, node, raw, sockets->layout.size));
		TRY(read_message(sockets, raw, level, pool, message));
		node = u64_at(raw, sockets->layout.next);
	}
	return NULL;
}
