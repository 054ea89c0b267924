/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tty_input.h"

#include <asm/ioctls.h>
#include <linux/tty.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>

/* What the line discipline stores for a line that was ended by VEOF, which is no part of it. */
enum { LINE_WITHOUT_END = 0 };

/* Only while it is typed again: any characters will do. */
enum { END_OF_FILE = 4, QUOTE = 22 };

const struct field tty_input_fields[] = {
	FIELD_BYTES(struct tty_input, text, TTY_INPUT_MAX, "typed and not read yet"),
	FIELD_BYTES(struct tty_input, ends, TTY_INPUT_MAX,
		    "as long: 1 where a line ends with this byte"),
	FIELD_END,
};

static struct cr_error *refuse(struct dump *dump, const struct descriptor *descriptor,
			       const char *why, const char *remedy)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "Cannot save %s: %s",
					   descriptor_name(dump, descriptor), why);

	error = error_task(error, descriptor->process->pid, descriptor->process->stat.comm);
	return error_remedy(error_object(error, "tty_input"), "%s", remedy);
}

/* What a keyboard or a client sends comes to the line discipline a moment later. */
static struct cr_error *read_settled(struct dump *dump, uint64_t file, struct kernel_tty_input *ret)
{
	enum { TRIES = 50 };

	for (int i = 0; i < TRIES; i++) {
		TRY(kernel_tty_input_read(dump->tty_reader, file, dump->image.pool, ret));
		if (!ret->waits)
			return NULL;
		sched_yield();
	}
	return NULL;
}

struct cr_error *tty_input_dump(struct dump *dump, const struct descriptor *descriptor, int fd,
				struct tty_input *ret)
{
	struct kernel_tty_input input;
	const struct tty_input *known;
	int discipline;

	if (ioctl(fd, TIOCGETD, &discipline) < 0)
		return error_sys("Failed to read the line discipline of %s",
				 descriptor_name(dump, descriptor));
	if (discipline != N_TTY)
		return refuse(dump, descriptor, "the terminal has a line discipline of its own",
			      "Not supported: end the program that has set it");
	if (!dump->tty_reader)
		TRY(kernel_tty_reader_open(dump->btf, dump->peek, &dump->tty_reader));
	TRY(read_settled(dump, descriptor->kernel->file, &input));
	if (input.waits)
		return refuse(dump, descriptor, "more has been typed than the terminal can hold",
			      "Try again when it has been read");
	/* another open file description may show the same terminal */
	known = hash_find(&dump->tty_inputs, input.tty, 0);
	if (known && known != ret)
		return NULL;
	ret->text = input.text;
	ret->ends = input.ends;
	return hash_add(dump->image.pool, &dump->tty_inputs, input.tty, 0, ret);
}

/* ---- restart ---- */

/* Nothing that is typed has an effect, is changed or shown; only lines are still lines. */
static struct termios2 harmless(const struct termios2 *termios)
{
	struct termios2 ret = *termios;

	ret.c_iflag = 0;
	ret.c_lflag = termios->c_lflag & ICANON ? ICANON | IEXTEN : 0;
	memset(ret.c_cc, 0, sizeof(ret.c_cc)); /* 0: none */
	ret.c_cc[VEOF] = END_OF_FILE;
	ret.c_cc[VLNEXT] = QUOTE;
	return ret;
}

static struct cr_error *type(int fd, uint8_t byte)
{
	/* CAP_SYS_ADMIN may, whatever dev.tty.legacy_tiocsti says and whose terminal it is */
	return ioctl(fd, TIOCSTI, &byte) < 0 ? error_sys("Failed to type on a terminal") : NULL;
}

/* In canonical mode. */
static struct cr_error *type_line_end(int fd, const struct termios2 *termios, uint8_t byte)
{
	struct termios2 settings = harmless(termios);

	if (byte == '\n')
		return type(fd, byte);
	if (byte == LINE_WITHOUT_END)
		return type(fd, END_OF_FILE);
	/* the program had chosen another one */
	settings.c_cc[VEOL] = byte;
	if (ioctl(fd, TCSETS2, &settings) < 0)
		return error_sys("Failed to set up a terminal");
	TRY(type(fd, byte));
	settings.c_cc[VEOL] = 0;
	return ioctl(fd, TCSETS2, &settings) < 0 ? error_sys("Failed to set up a terminal") : NULL;
}

static struct cr_error *type_in_line(int fd, uint8_t byte)
{
	if (byte == '\n' || byte == END_OF_FILE || byte == QUOTE)
		TRY(type(fd, QUOTE));
	return type(fd, byte);
}

static struct cr_error *type_all(const struct tty_input *input, int fd,
				 const struct termios2 *termios)
{
	for (size_t i = 0; i < input->text.len; i++) {
		uint8_t byte = input->text.data[i];

		if (!(termios->c_lflag & ICANON))
			TRY(type(fd, byte));
		else if (i < input->ends.len && input->ends.data[i])
			TRY(type_line_end(fd, termios, byte));
		else
			TRY(type_in_line(fd, byte));
	}
	return NULL;
}

struct cr_error *tty_input_restore(const struct tty_input *input, int fd,
				   const struct termios2 *termios)
{
	struct termios2 meanwhile = harmless(termios);

	if (!input->text.len)
		return NULL;
	if (ioctl(fd, TCSETS2, &meanwhile) < 0)
		return error_sys("Failed to set up a terminal");
	TRY(type_all(input, fd, termios));
	return ioctl(fd, TCSETS2, termios) < 0 ? error_sys("Failed to set up a terminal") : NULL;
}
