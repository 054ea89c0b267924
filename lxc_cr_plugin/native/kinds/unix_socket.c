/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unix sockets without a name: pairs, what is left of one when an end is closed, and those that were
 * never connected. Named ones are refused.
 */
#include "unix_socket.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include "../cleanup.h"
#include "../kernel/unix_sockets.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

enum { SHUTDOWN_BOTH = 3 };

/* What is read as it is set; kernels may lack the newer ones. */
static const int options[] = {
	SO_SNDBUF,   SO_RCVBUF,	  SO_PASSCRED, SO_PASSSEC,  SO_PASSPIDFD, SO_PASSRIGHTS,
	SO_RCVLOWAT, SO_PRIORITY, SO_MARK,     SO_PEEK_OFF, SO_KEEPALIVE, SO_TIMESTAMP,
};

enum { OPTIONS = sizeof(options) / sizeof(options[0]) };

static const struct field option_fields[] = {
	FIELD_INT(struct unix_option, option, 0, INT32_MAX, "SO_..."),
	FIELD_INT(struct unix_option, value, INT32_MIN, INT32_MAX, "as getsockopt(2) gives it"),
	FIELD_END,
};

static const struct field unix_socket_fields[] = {
	FIELD_FILE(struct unix_socket),
	FIELD_UINT(struct unix_socket, type, SOCK_STREAM, SOCK_SEQPACKET, "SOCK_..."),
	FIELD_BOOL(struct unix_socket, connected, "it has or had a peer"),
	FIELD_UINT(struct unix_socket, peer, 0, UINT32_MAX, "the other end, 0: it is closed"),
	FIELD_BOOL(struct unix_socket, reset, "the other end was closed before it had read all"),
	FIELD_UINT(struct unix_socket, shutdown, 0, SHUTDOWN_BOTH,
		   "shutdown(2): 1 reading, 2 writing"),
	FIELD_INT(struct unix_socket, creator, 0, MAX_TASKS, "SO_PEERCRED: process"),
	FIELD_UINT(struct unix_socket, creator_uid, 0, UINT32_MAX, "its effective user id"),
	FIELD_UINT(struct unix_socket, creator_gid, 0, UINT32_MAX, "its effective group id"),
	FIELD_UINT(struct unix_socket, receive_timeout, 0, INT64_MAX, "SO_RCVTIMEO, ns; 0: none"),
	FIELD_UINT(struct unix_socket, send_timeout, 0, INT64_MAX, "SO_SNDTIMEO, ns; 0: none"),
	FIELD_ROWS(struct unix_socket, options, struct unix_option, option_fields, 64,
		   "option, value"),
	FIELD_LIST(struct unix_socket, queue, struct unix_message, unix_message_fields, 1 << 20,
		   "what waits to be read, oldest first"),
	FIELD_END,
};

static bool unix_socket_claims(const struct descriptor *descriptor)
{
	return S_ISSOCK(descriptor->stat.st_mode);
}

static struct cr_error *refuse(struct dump *dump, const struct descriptor *descriptor,
			       const char *object, const char *why)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "Cannot save %s: %s",
					   descriptor_name(dump, descriptor), why);

	error = error_task(error, descriptor->process->pid, descriptor->process->stat.comm);
	return error_remedy(error_object(error, object),
			    "Not supported yet; end the process, or let it close the socket");
}

static int number(int fd, int option)
{
	socklen_t len = sizeof(int);
	int value = 0;

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0 ? -1 : value;
}

/* The name of an unnamed socket is its family alone. */
static bool is_named(int fd, int (*get)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_un name;
	socklen_t len = sizeof(name);

	return get(fd, (struct sockaddr *)&name, &len) == 0 && len > sizeof(sa_family_t);
}

static int own_name(int fd, struct sockaddr *name, socklen_t *len)
{
	return getsockname(fd, name, len);
}

static int peer_name(int fd, struct sockaddr *name, socklen_t *len)
{
	return getpeername(fd, name, len);
}

/* With the name as ss(8) shows it: what is in no directory begins with '@'. */
static struct cr_error *refuse_name(struct dump *dump, const struct descriptor *descriptor, int fd)
{
	struct sockaddr_un name = {0};
	char shown[sizeof(name.sun_path) + 1] = "", why[sizeof(shown) + 48];
	socklen_t len = sizeof(name);

	if (getsockname(fd, (struct sockaddr *)&name, &len) == 0)
		memcpy(shown, name.sun_path, sizeof(name.sun_path));
	if (!shown[0])
		shown[0] = '@';
	snprintf(why, sizeof(why), "it is a unix socket with a name, '%s'", shown);
	return refuse(dump, descriptor, "unix_socket", why);
}

static struct cr_error *check(struct dump *dump, const struct descriptor *descriptor, int fd)
{
	if (number(fd, SO_DOMAIN) != AF_UNIX)
		return refuse(dump, descriptor, "socket", "it is a socket of the network");
	if (is_named(fd, own_name) || number(fd, SO_ACCEPTCONN) > 0)
		return refuse_name(dump, descriptor, fd);
	if (is_named(fd, peer_name))
		return refuse(dump, descriptor, "unix_socket",
			      "it is connected to a unix socket with a name");
	return NULL;
}

static struct cr_error *open_reader(struct dump *dump)
{
	return dump->kernel_sockets
		       ? NULL
		       : kernel_unix_sockets_open(dump->btf, dump->peek, &dump->kernel_sockets);
}

/* It changes while we look. */
static struct cr_error *note_in_flight(struct dump *dump, const struct descriptor *descriptor)
{
	struct kernel_unix_socket seen;
	struct cr_error *error =
		kernel_unix_socket_read(dump->kernel_sockets, descriptor->kernel->file, 0, &seen);

	if (!error && seen.queued)
		error = unix_queue_note(dump, seen.sock);
	cr_error_free(error);
	return NULL;
}

static struct cr_error *unix_socket_check(struct dump *dump, const struct descriptor *descriptor)
{
	_cleanup_close_ int fd = -1;

	if (descriptor->flags & O_PATH)
		return refuse(dump, descriptor, "unix_socket", "it is a socket opened with O_PATH");
	TRY(descriptor_get(descriptor, &fd));
	TRY(check(dump, descriptor, fd));
	TRY(open_reader(dump));
	return dump->running ? note_in_flight(dump, descriptor) : NULL;
}

/* ---- dump ---- */

static struct cr_error *dump_timeout(int fd, int option, uint64_t *ret)
{
	struct timeval time;
	socklen_t len = sizeof(time);

	if (getsockopt(fd, SOL_SOCKET, option, &time, &len) < 0)
		return error_sys("Failed to read a time-out of a socket");
	*ret = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_usec * 1000u;
	return NULL;
}

static struct cr_error *dump_options(struct dump *dump, int fd, struct unix_socket *socket)
{
	for (int i = 0; i < OPTIONS; i++) {
		socklen_t len = sizeof(int);
		struct unix_option *slot;
		int value = 0;

		if (getsockopt(fd, SOL_SOCKET, options[i], &value, &len) < 0)
			continue;
		slot = list_append(dump->image.pool, &socket->options, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = (struct unix_option){.option = options[i], .value = value};
	}
	TRY(dump_timeout(fd, SO_RCVTIMEO, &socket->receive_timeout));
	return dump_timeout(fd, SO_SNDTIMEO, &socket->send_timeout);
}

static struct cr_error *dump_creator(int fd, const struct kernel_unix_socket *seen,
				     struct unix_socket *socket)
{
	struct ucred creator = {0};
	socklen_t len = sizeof(creator);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creator, &len) < 0)
		return error_sys("Failed to read the creator of a socket");
	socket->creator = seen->peer_pid;
	socket->creator_uid = creator.uid;
	socket->creator_gid = creator.gid;
	return NULL;
}

static struct cr_error *check_seen(struct dump *dump, const struct descriptor *descriptor,
				   const struct unix_socket *socket,
				   const struct kernel_unix_socket *seen)
{
	if (seen->urgent)
		return refuse(dump, descriptor, "unix_socket", "urgent data (MSG_OOB) waits in it");
	/* looking at datagrams would take the error away */
	if (seen->error &&
	    (seen->error != ECONNRESET || seen->peer_open || socket->type == SOCK_DGRAM))
		return refuse(dump, descriptor, "unix_socket", "it has an error to report");
	return NULL;
}

static struct cr_error *unix_socket_dump(struct dump *dump, const struct descriptor *descriptor,
					 void *state)
{
	struct unix_socket *socket = state;
	unsigned int level = dump->init->status.pid_levels - 1;
	struct kernel_unix_socket seen;
	_cleanup_close_ int fd = -1;

	TRY(open_reader(dump));
	TRY(descriptor_get(descriptor, &fd));
	TRY(kernel_unix_socket_read(dump->kernel_sockets, descriptor->kernel->file, level, &seen));
	socket->type = (uint32_t)number(fd, SO_TYPE);
	TRY(check_seen(dump, descriptor, socket, &seen));
	socket->sock = seen.sock;
	socket->peer_sock = seen.peer_open ? seen.peer : 0;
	socket->connected = seen.peer;
	socket->reset = seen.error;
	socket->shutdown = seen.shutdown & SHUTDOWN_BOTH;
	TRY(dump_creator(fd, &seen, socket));
	socket->queued = seen.queued;
	return dump_options(dump, fd, socket);
}

static int by_sock(const void *a, const void *b)
{
	const struct unix_socket *x = (*(struct object *const *)a)->state;
	const struct unix_socket *y = (*(struct object *const *)b)->state;

	return (x->sock > y->sock) - (x->sock < y->sock);
}

static struct cr_error *sort_sockets(struct dump *dump)
{
	struct list *sockets = &dump->unix_sockets;

	if (sockets->count)
		return NULL;
	for_each (struct object *, object, &dump->image.objects) {
		struct object **slot;

		if (object->kind != &unix_socket_kind)
			continue;
		slot = list_append(dump->image.pool, sockets, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = object;
	}
	qsort(sockets->items, sockets->count, sizeof(struct object *), by_sock);
	return NULL;
}

static struct cr_error *refuse_peer(const struct object *object, const char *why)
{
	struct process *holder = object->holder;
	struct cr_error *error =
		error_new(CR_ISOLATION,
			  "Cannot save descriptor %d of process %d (%s): the other end of this "
			  "socket %s",
			  object->holder_fd, holder->pid, holder->stat.comm, why);

	error = error_task(error_object(error, "unix_socket"), holder->pid, holder->stat.comm);
	return error_remedy(error, "End the process, or let it close the socket");
}

static struct cr_error *unix_socket_dump_links(struct dump *dump, struct object *object)
{
	struct unix_socket *socket = object->state, key_state = {.sock = socket->peer_sock}, *peer;
	struct object key_object = {.state = &key_state}, *key = &key_object, **found;

	if (!socket->peer_sock)
		return NULL;
	TRY(sort_sockets(dump));
	found = bsearch(&key, dump->unix_sockets.items, dump->unix_sockets.count, sizeof(*found),
			by_sock);
	if (!found)
		return refuse_peer(object, "is held outside the container");
	peer = (*found)->state;
	if (peer->peer_sock != socket->sock)
		return refuse_peer(object, "is connected elsewhere");
	socket->peer = (*found)->id;
	return NULL;
}

/* ---- restart ---- */

static pid_t find_creator(struct restore *restore, const struct unix_socket *socket)
{
	const struct process *process = image_living(&restore->image, socket->creator);

	if (process)
		return process_leader(process)->host_tid;
	log_say(&restore->log, CR_WARNING,
		"Process %d, which made a pair of sockets, is gone: SO_PEERCRED will name init",
		socket->creator);
	return restore->init;
}

/* The kernel notes who makes a socket, and in which network. */
static struct cr_error *make(struct restore *restore, const struct unix_socket *socket, int ends[2])
{
	struct program *p = restore->program;
	pid_t tid = find_creator(restore, socket);
	uint32_t uid, gid;
	uint64_t pair;
	int theirs[2];

	TRY(id_map_user(&restore->image.ids, socket->creator_uid, &uid));
	TRY(id_map_group(&restore->image.ids, socket->creator_gid, &gid));
	TRY(program_run(p));
	program_begin(p, tid);
	pair = program_data(p, NULL, sizeof(theirs));
	program_call(p, "take a group id", SYS_setresgid, (uint64_t)-1, gid, (uint64_t)-1);
	program_call(p, "take a user id", SYS_setresuid, (uint64_t)-1, uid, (uint64_t)-1);
	program_call(p, "make a socket pair", SYS_socketpair, AF_UNIX, socket->type | SOCK_CLOEXEC,
		     0, pair);
	program_call(p, "put the user id back", SYS_setresuid, (uint64_t)-1, 0, (uint64_t)-1);
	program_call(p, "put the group id back", SYS_setresgid, (uint64_t)-1, 0, (uint64_t)-1);
	TRY(program_run(p));
	TRY(program_output(p, pair, theirs, sizeof(theirs)));
	for (int i = 0; i < 2; i++)
		TRY(restore_fetch(restore, tid, theirs[i], &ends[i]));
	TRY(program_run(p));
	program_begin(p, restore->init);
	return NULL;
}

static struct cr_error *make_single(struct restore *restore, const struct unix_socket *socket,
				    int *ret)
{
	struct program *p = restore->program;
	int call;

	TRY(program_reserve(p, 2, 0));
	call = program_call(p, "make a socket", SYS_socket, AF_UNIX, socket->type | SOCK_CLOEXEC,
			    0);
	TRY(program_run(p));
	return restore_fetch(restore, p->tid, (int)program_result(p, call), ret);
}

static struct cr_error *find_peer(struct restore *restore, const struct object *object,
				  struct object **ret)
{
	const struct unix_socket *socket = object->state, *peer;

	*ret = socket->peer ? image_object(&restore->image, socket->peer) : NULL;
	if (!socket->peer)
		return NULL;
	peer = *ret && (*ret)->kind == &unix_socket_kind ? (*ret)->state : NULL;
	if (peer && *ret != object && peer->peer == object->id && peer->type == socket->type)
		return NULL;
	return error_new(CR_IMAGE, "Unix socket %u is no pair with %u", object->id, socket->peer);
}

static struct cr_error *make_pair(struct restore *restore, struct object *object)
{
	struct unix_socket *socket = object->state;
	struct object *peer;
	int ends[2];

	TRY(find_peer(restore, object, &peer));
	TRY(make(restore, socket, ends));
	object->fd = ends[0];
	if (peer)
		peer->fd = ends[1];
	else
		socket->mate = ends[1];
	return NULL;
}

static struct cr_error *restore_inode(const struct object *object, const struct file *file)
{
	struct stat stat;

	if (fstat(object->fd, &stat) < 0)
		return error_sys("Failed to look at unix socket %u", object->id);
	if ((stat.st_uid != file->uid || stat.st_gid != file->gid) &&
	    fchown(object->fd, file->uid, file->gid) < 0)
		return error_sys("Failed to set the owner of unix socket %u", object->id);
	return file_set_flags(object, file);
}

static struct cr_error *unix_socket_restore(struct restore *restore, struct object *object,
					    const void *state)
{
	const struct unix_socket *socket = state;

	/* the other end may have made it */
	if (object->fd < 0)
		TRY(socket->connected ? make_pair(restore, object)
				      : make_single(restore, socket, &object->fd));
	return restore_inode(object, &socket->file);
}

static struct cr_error *set_option(const struct object *object, int option, int value)
{
	/* the kernel doubles what it is given, and limits it for ordinary users */
	if (option == SO_SNDBUF || option == SO_RCVBUF) {
		option = option == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
		value /= 2;
	}
	if (setsockopt(object->fd, SOL_SOCKET, option, &value, sizeof(value)) < 0)
		return error_sys("Failed to set option %d of unix socket %u", option, object->id);
	return NULL;
}

static struct cr_error *restore_timeout(const struct object *object, int option, uint64_t ns)
{
	struct timeval time = {.tv_sec = (time_t)(ns / 1000000000u),
			       .tv_usec = (suseconds_t)(ns % 1000000000u / 1000u)};

	if (setsockopt(object->fd, SOL_SOCKET, option, &time, sizeof(time)) < 0)
		return error_sys("Failed to set a time-out of unix socket %u", object->id);
	return NULL;
}

static bool is_known(int option)
{
	for (int i = 0; i < OPTIONS; i++) {
		if (options[i] == option)
			return true;
	}
	return false;
}

static struct cr_error *restore_options(const struct object *object)
{
	const struct unix_socket *socket = object->state;
	const struct unix_option *option = socket->options.items;

	for (size_t i = 0; i < socket->options.count; i++) {
		if (!is_known(option[i].option))
			return error_new(CR_IMAGE, "A unix socket has no option %d",
					 option[i].option);
		TRY(set_option(object, option[i].option, option[i].value));
	}
	TRY(restore_timeout(object, SO_RCVTIMEO, socket->receive_timeout));
	return restore_timeout(object, SO_SNDTIMEO, socket->send_timeout);
}

/* The end that nobody has: closed before it had read all, it leaves an error. */
static struct cr_error *close_mate(const struct object *object)
{
	struct unix_socket *socket = object->state;
	int mate = socket->mate;

	if (!mate)
		return NULL;
	socket->mate = 0;
	if (socket->reset && send(object->fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1) {
		close(mate);
		return error_sys("Failed to fill a unix socket");
	}
	close(mate);
	return NULL;
}

/* Nothing can be sent when it is shut down, and what is sent depends on the options. */
static struct cr_error *finish(const struct object *object)
{
	const struct unix_socket *socket = object->state;

	TRY(close_mate(object));
	TRY(restore_options(object));
	if (socket->shutdown && shutdown(object->fd, (int)socket->shutdown - 1) < 0)
		return error_sys("Failed to shut down unix socket %u", object->id);
	return NULL;
}

static struct cr_error *unix_socket_restore_links(struct restore *restore, struct object *object)
{
	struct unix_socket *socket = object->state, *other;
	struct object *peer;

	if (socket->linked)
		return NULL;
	TRY(find_peer(restore, object, &peer));
	if (!peer && !socket->mate && socket->queue.count)
		return error_new(CR_IMAGE, "Nobody can have sent what waits in unix socket %u",
				 object->id);
	TRY(unix_queue_fill(restore, socket, peer ? peer->fd : socket->mate));
	socket->linked = true;
	if (!peer)
		return finish(object);
	other = peer->state;
	other->linked = true;
	TRY(unix_queue_fill(restore, other, object->fd));
	TRY(finish(object));
	return finish(peer);
}

const struct kind unix_socket_kind = {
	.name = "unix_socket",
	.doc = "Unix socket without a name: pair, what waits in it, options, shutdown",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct unix_socket),
	.fields = unix_socket_fields,
	.claims = unix_socket_claims,
	.check_file = unix_socket_check,
	.dump_file = unix_socket_dump,
	.dump_links = unix_socket_dump_links,
	.restore_file = unix_socket_restore,
	.restore_links = unix_socket_restore_links,
};
