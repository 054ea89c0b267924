/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "../cleanup.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

struct cr_error *task_get_fds(pid_t tid, const int *fds, int *ret, size_t count)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, tid, 0);

	/* not the first thread of its process */
	if (pidfd < 0 && errno != ESRCH)
		pidfd = (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD);
	if (pidfd < 0)
		return error_new(CR_GONE, "Task %d is gone", tid);
	for (size_t i = 0; i < count; i++) {
		struct cr_error *error;

		ret[i] = (int)syscall(SYS_pidfd_getfd, pidfd, fds[i], 0);
		if (ret[i] >= 0)
			continue;
		error = error_sys("Failed to fetch descriptor %d of task %d", fds[i], tid);
		while (i-- > 0)
			close(ret[i]);
		return error;
	}
	return NULL;
}

struct cr_error *task_get_fd(pid_t tid, int fd, int *ret)
{
	return task_get_fds(tid, &fd, ret, 1);
}

struct cr_error *channel_open(struct channel *channel, struct program *program, int theirs)
{
	uint64_t pair = program_data(program, NULL, 2 * sizeof(int));
	int ends[2];

	program_call(program, "make a socket pair", SYS_socketpair, AF_UNIX,
		     SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
	TRY(program_run(program));
	TRY(program_output(program, pair, ends, sizeof(ends)));
	TRY(task_get_fd(program->tid, ends[0], &channel->ours));
	program_call(program, "close our end of the channel", SYS_close, (uint64_t)ends[0]);
	program_call(program, "move the channel", SYS_dup3, (uint64_t)ends[1], (uint64_t)theirs,
		     O_CLOEXEC);
	program_call(program, "close the channel's first number", SYS_close, (uint64_t)ends[1]);
	channel->theirs = theirs;
	return program_run(program);
}

void channel_close(struct channel *channel)
{
	if (channel->ours >= 0)
		close(channel->ours);
	channel->ours = -1;
}

struct cr_error *channel_send(struct channel *channel, const int *fds, size_t count)
{
	char control[CMSG_SPACE(CHANNEL_BATCH * sizeof(int))] = {0}, byte = 'f';
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(count * sizeof(int)),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	if (sendmsg(channel->ours, &message, MSG_DONTWAIT | MSG_NOSIGNAL) != 1)
		return error_sys("Failed to hand %zu descriptors to the container", count);
	return NULL;
}

uint64_t channel_receive(struct channel *channel, struct program *program, size_t count)
{
	uint64_t control_size = CMSG_SPACE(count * sizeof(int));
	uint64_t byte = program_data(program, NULL, 16);
	uint64_t control = program_data(program, NULL, control_size + 8);
	struct iovec iov = {.iov_base = (void *)byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = (void *)program_data(program, &iov, sizeof(iov)),
		.msg_iovlen = 1,
		.msg_control = (void *)control,
		.msg_controllen = control_size,
	};

	program_call(program, "receive descriptors", SYS_recvmsg, (uint64_t)channel->theirs,
		     program_data(program, &message, sizeof(message)), MSG_DONTWAIT);
	return control + CMSG_LEN(0);
}
