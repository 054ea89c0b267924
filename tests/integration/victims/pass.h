/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sending descriptors through a unix socket: unix(7), SCM_RIGHTS. */
#ifndef PASS_H
#define PASS_H

#include <sys/socket.h>

#include "victim.h"

enum { MOST = 253 }; /* SCM_MAX_FD of the kernel */

/* @text and descriptors, which are closed here. */
static inline void pass(int fd, const char *text, const int *fds, size_t count)
{
	char control[CMSG_SPACE(MOST * sizeof(int))] = "";
	struct iovec iov = {(void *)text, strlen(text)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *header = (struct cmsghdr *)control;

	if (count) {
		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	check(sendmsg(fd, &message, 0) == (ssize_t)iov.iov_len, "sendmsg: %s", strerror(errno));
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

#endif
