/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The terminal that init gave a program: settings, size, input, foreground group; /dev/tty, also with
 * a process of another session, and in flight.
 */
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#include "pass.h"

static uint32_t *arrived;

/* Waits to be read, byte for byte: nothing in it means anything. */
static const char typed[] = "q\3\n\4\026\177\377";

static void foreground(void *unused)
{
	(void)unused;
	must(setpgid(0, 0));
	signal(SIGTTOU, SIG_IGN);
	must(tcsetpgrp(0, getpgrp()));
	victim_arrive(arrived);
	victim_wait();
	check(tcgetpgrp(0) == getpgrp(), "foreground group is %d, not %d", tcgetpgrp(0), getpgrp());
	victim_arrive(arrived);
}

/* Has a session of its own, without a terminal, and the /dev/tty of another one. */
static void keep(void *own)
{
	must(setsid());
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	victim_arrive(arrived);
	victim_wait();
	check(isatty(*(int *)own), "the /dev/tty of another session is no terminal");
}

static int ends[2];

static void send_tty(void)
{
	int fd = must(open("/dev/tty", O_RDWR));

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	pass(ends[0], "t", &fd, 1);
}

static void receive_tty(void)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	int fd;

	must(recvmsg(ends[1], &message, 0));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	check(isatty(fd) && tcgetsid(fd) == getsid(0), "/dev/tty in flight is another terminal");
}

static void stop(int signal)
{
	check(false, "signal %d", signal);
}

int main(int argc, char **argv)
{
	struct termios before, now;
	struct winsize size = {.ws_row = 37, .ws_col = 111, .ws_xpixel = 5, .ws_ypixel = 6},
		       size_now;
	char name[64], name_now[64];
	int own, by_name;
	pid_t child, keeper, session;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	signal(SIGHUP, stop);
	signal(SIGTTOU, SIG_IGN);
	check(isatty(0) && isatty(1) && isatty(2), "no terminal");
	check(tcgetsid(0) == getsid(0), "no controlling terminal: session %d", tcgetsid(0));
	session = getsid(0);
	must(ttyname_r(0, name, sizeof(name)));
	must(tcgetattr(0, &before));
	before.c_lflag &= ~(ICANON | ECHO | ISIG);
	before.c_iflag |= IUTF8;
	before.c_cc[VMIN] = 3;
	before.c_cc[VTIME] = 7;
	before.c_cc[VINTR] = 'q';
	must(tcsetattr(0, TCSANOW, &before));
	must(tcgetattr(0, &before));
	must(ioctl(0, TIOCSWINSZ, &size));
	for (size_t i = 0; i < sizeof(typed); i++)
		must(ioctl(0, TIOCSTI, typed + i));
	own = must(open("/dev/tty", O_RDWR | O_CLOEXEC));
	by_name = must(open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK));
	child = victim_child(foreground, NULL);
	keeper = victim_child(keep, &own);
	send_tty();
	victim_meet(arrived, 2);
	victim_ready();
	victim_wait();

	victim_meet(arrived, 3);
	check(isatty(0) && isatty(own) && isatty(by_name), "a terminal is none any more");
	must(ttyname_r(0, name_now, sizeof(name_now)));
	check(strcmp(name, name_now) == 0, "terminal was %s, is %s", name, name_now);
	must(tcgetattr(0, &now));
	check(now.c_iflag == before.c_iflag && now.c_oflag == before.c_oflag &&
		      now.c_cflag == before.c_cflag && now.c_lflag == before.c_lflag &&
		      memcmp(now.c_cc, before.c_cc, sizeof(now.c_cc)) == 0,
	      "terminal settings: %#x %#x %#x %#x were %#x %#x %#x %#x", now.c_iflag, now.c_oflag,
	      now.c_cflag, now.c_lflag, before.c_iflag, before.c_oflag, before.c_cflag,
	      before.c_lflag);
	must(ioctl(own, TIOCGWINSZ, &size_now));
	check(memcmp(&size, &size_now, sizeof(size)) == 0, "size is %dx%d", size_now.ws_col,
	      size_now.ws_row);
	check(tcgetsid(0) == session, "session of the terminal is %d", tcgetsid(0));
	receive_tty();
	victim_reap(keeper);
	victim_reap(child);
	must(tcsetpgrp(0, getpgrp()));
	check(read(0, name_now, sizeof(name_now)) == sizeof(typed) &&
		      memcmp(name_now, typed, sizeof(typed)) == 0,
	      "what was typed is lost");
	check(write(own, "still here\r\n", 12) == 12, "write");
	close(must(open("/dev/tty", O_RDWR)));
	victim_ok();
	return 0;
}
