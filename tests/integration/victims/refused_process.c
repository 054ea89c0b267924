/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Properties of a process that cannot be saved, one per run: argv[2] names it. After the checkpoint was
 * refused it must still be there. Says "absent" where this kernel has it not.
 */
#include <asm/ldt.h>
#include <elf.h>
#include <linux/aio_abi.h>
#include <linux/landlock.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

static void absent(void)
{
	victim_say("absent");
	exit(0);
}

/* Asynchronous input and output, which can still be asked for. */
static aio_context_t ring;
static int fd;

static void aio(void)
{
	must(syscall(SYS_io_setup, 1, &ring));
	fd = must(open(victim_path, O_RDWR | O_APPEND));
}

static void aio_verify(void)
{
	struct iocb request = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t) "append\n",
		.aio_nbytes = 7,
	};
	struct iocb *requests[] = {&request};
	struct io_event event;

	check(syscall(SYS_io_submit, ring, 1, requests) == 1, "io_submit: %s", strerror(errno));
	check(syscall(SYS_io_getevents, ring, 1, 1, &event, NULL) == 1 && event.res == 7,
	      "io_getevents: %s", strerror(errno));
}

static void segments(void)
{
	struct user_desc segment = {
		.entry_number = 3, .limit = 0xfff, .seg_32bit = 1, .useable = 1};

	must(syscall(SYS_modify_ldt, 1, &segment, sizeof(segment)));
}

static void segments_verify(void)
{
	uint64_t entries[4] = {0};

	must(syscall(SYS_modify_ldt, 0, entries, sizeof(entries)));
	check(entries[3], "the segment is gone");
}

/* May list no directory. */
static void landlock(void)
{
	struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_READ_DIR};

	fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0);
	if (fd < 0)
		absent();
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	must(syscall(SYS_landlock_restrict_self, fd, 0));
	must(close(fd));
}

static void landlock_verify(void)
{
	check(open("/", O_RDONLY | O_DIRECTORY) < 0 && errno == EACCES, "it may list a directory");
}

static pid_t child;

/* A program for 32 bits, which pauses for ever. */
static void program_of_32_bits(void)
{
	static const uint8_t code[] = {0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7};
	enum { AT = 0x10000, HEAD = sizeof(Elf32_Ehdr) + sizeof(Elf32_Phdr) };
	Elf32_Ehdr header = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_386,
		.e_version = EV_CURRENT,
		.e_entry = AT + HEAD,
		.e_phoff = sizeof(header),
		.e_ehsize = sizeof(header),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = 1,
	};
	Elf32_Phdr segment = {
		.p_type = PT_LOAD,
		.p_vaddr = AT,
		.p_filesz = HEAD + sizeof(code),
		.p_memsz = HEAD + sizeof(code),
		.p_flags = PF_R | PF_X,
		.p_align = 4096,
	};
	static const char path[] = "/tmp/refused_process";
	int program = must(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700));

	check(write(program, &header, sizeof(header)) == sizeof(header) &&
		      write(program, &segment, sizeof(segment)) == sizeof(segment) &&
		      write(program, code, sizeof(code)) == sizeof(code),
	      "write");
	close(program);
	child = must(fork());
	if (child == 0) {
		execl(path, path, NULL);
		_exit(1);
	}
	victim_nap(50);
	if (waitpid(child, NULL, WNOHANG))
		absent(); /* this kernel runs none */
}

static void program_of_32_bits_verify(void)
{
	check(waitpid(child, NULL, WNOHANG) == 0, "the program has ended");
	must(kill(child, SIGKILL));
	check(waitpid(child, NULL, 0) == child, "waitpid");
}

static const struct victim_state properties[] = {
	{"aio", aio, aio_verify},
	{"segments", segments, segments_verify},
	{"landlock", landlock, landlock_verify},
	{"program_of_32_bits", program_of_32_bits, program_of_32_bits_verify},
};

int main(int argc, char **argv)
{
	return victim_of(properties, sizeof(properties) / sizeof(properties[0]), argc, argv);
}
