/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What was typed on a terminal and nobody has read yet: lines, and the beginning of one. */
#include <sys/ioctl.h>
#include <termios.h>

#include "victim.h"

enum { ERASE = 'E', END_OF_FILE = 'D', QUOTE = 'V', END_OF_LINE = '|' };

/* As if it came from the keyboard. */
static void type(const char *text)
{
	while (*text)
		must(ioctl(0, TIOCSTI, text++));
}

static void expect(const char *text, size_t len)
{
	char buffer[256];
	ssize_t got = must(read(0, buffer, sizeof(buffer)));

	check(got == (ssize_t)len && memcmp(buffer, text, len) == 0, "%zd bytes: %.*s, not %s", got,
	      (int)got, buffer, text);
}

int main(int argc, char **argv)
{
	struct termios lines, now;
	int other, waiting = 0;

	victim_init(argc, argv);
	check(isatty(0), "no terminal");
	must(tcgetattr(0, &lines));
	lines.c_lflag |= ICANON | IEXTEN | ISIG;
	lines.c_lflag &= ~ECHO;
	lines.c_cc[VERASE] = ERASE;
	lines.c_cc[VEOF] = END_OF_FILE;
	lines.c_cc[VLNEXT] = QUOTE;
	lines.c_cc[VEOL] = END_OF_LINE;
	must(tcsetattr(0, TCSANOW, &lines));
	/* the same terminal, opened once more */
	other = must(open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC));
	type("first line\n");
	type("no newline");
	type("D");
	type("quotedV\nand VD VV\n");
	type("other end|");
	type("unfinixx");
	victim_ready();
	victim_wait();
	must(tcgetattr(0, &now));
	check(now.c_lflag == lines.c_lflag && now.c_iflag == lines.c_iflag &&
		      memcmp(now.c_cc, lines.c_cc, sizeof(now.c_cc)) == 0,
	      "settings changed");
	expect("first line\n", 11);
	expect("no newline", 10);
	expect("quoted\nand D V\n", 15);
	expect("other end|", 10);
	must(ioctl(other, FIONREAD, &waiting));
	check(waiting == 0, "a line that is not finished has %d bytes", waiting);
	/* it can still be corrected */
	type("EEshed\n");
	expect("unfinished\n", 11);
	victim_ok();
	return 0;
}
