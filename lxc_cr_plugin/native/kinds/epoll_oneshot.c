/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epoll_oneshot.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../target/channel.h"
#include "file.h"

extern const struct kind pipe_kind, fifo_kind, timerfd_kind;

bool epoll_is_disarmed(const struct epoll_entry *entry)
{
	const uint32_t kept = EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE;

	return entry->events & EPOLLONESHOT && !(entry->events & ~kept);
}

static bool is_ready(int fd)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP};

	return poll(&ready, 1, 0) == 1;
}

static bool is_reading_end(const struct object *target)
{
	return (target->kind == &pipe_kind || target->kind == &fifo_kind) &&
	       (file_of(target)->flags & O_ACCMODE) == O_RDONLY;
}

bool epoll_can_fire(const struct object *target)
{
	_cleanup_close_ int fd = -1;
	_cleanup_error_ struct cr_error *error = NULL;

	if (is_reading_end(target) || target->kind == &timerfd_kind)
		return true;
	error = task_get_fd(target->holder->host_pid, target->holder_fd, &fd);
	return !error && is_ready(fd);
}

/* Each reports once. */
static void collect(struct object *object, size_t *left)
{
	struct epoll_event event;

	while (*left && epoll_wait(object->fd, &event, 1, 0) == 1)
		--*left;
}

/* A byte goes in and comes out again. */
static struct cr_error *fire_pipe(struct object *object, struct object *target, size_t *left)
{
	_cleanup_close_ int out = -1, in = -1;
	char name[64], byte = 0;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", target->fd);
	out = open(name, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	in = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (out < 0 || in < 0 || write(out, &byte, 1) != 1)
		return error_sys("Failed to write into pipe %u", target->id);
	collect(object, left);
	return read(in, &byte, 1) == 1 ? NULL : error_sys("Failed to empty pipe %u", target->id);
}

/* It is set to what it was at the release. */
static struct cr_error *fire_timer(struct object *object, struct object *target, size_t *left)
{
	struct itimerspec soon = {.it_value.tv_nsec = 1}, never = {0};
	struct pollfd ready = {.fd = target->fd, .events = POLLIN};
	enum { PATIENCE = 1000 };

	if (timerfd_settime(target->fd, 0, &soon, NULL) < 0 || poll(&ready, 1, PATIENCE) != 1)
		return error_sys("Failed to let timerfd %u expire", target->id);
	collect(object, left);
	if (timerfd_settime(target->fd, 0, &never, NULL) < 0)
		return error_sys("Failed to stop timerfd %u", target->id);
	return NULL;
}

struct cr_error *epoll_fire(struct object *object, struct object *target, size_t *left)
{
	if (!is_ready(target->fd) && is_reading_end(target))
		return fire_pipe(object, target, left);
	if (!is_ready(target->fd) && target->kind == &timerfd_kind)
		return fire_timer(object, target, left);
	collect(object, left);
	return NULL;
}
