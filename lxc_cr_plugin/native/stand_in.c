/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stand_in.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "kinds/memory_special.h"
#include "takeover.h"

struct stand_in {
	Elf64_Ehdr header;
	Elf64_Phdr segment;
	uint8_t code[sizeof(arch_breakpoint)];
};

/* Behind the program area, where nothing of the image lies. */
static uint64_t place(const struct restore *restore)
{
	return restore->area + ((PROGRAM_AREA + PAGE - 1) & ~(PAGE - 1));
}

static struct cr_error *write_program(const struct restore *restore, int fd)
{
	uint64_t at = place(restore);
	struct stand_in program = {
		.header =
			{
				.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
					    ELFDATA2LSB, EV_CURRENT},
				.e_type = ET_EXEC,
				.e_machine = ARCH_ELF_MACHINE,
				.e_version = EV_CURRENT,
				.e_entry = at + offsetof(struct stand_in, code),
				.e_phoff = offsetof(struct stand_in, segment),
				.e_ehsize = sizeof(Elf64_Ehdr),
				.e_phentsize = sizeof(Elf64_Phdr),
				.e_phnum = 1,
			},
		.segment =
			{
				.p_type = PT_LOAD,
				.p_flags = PF_R | PF_X,
				.p_vaddr = at,
				.p_filesz = sizeof(program),
				.p_memsz = sizeof(program),
				.p_align = PAGE,
			},
	};

	memcpy(program.code, arch_breakpoint, sizeof(program.code));
	if (write(fd, &program, sizeof(program)) != sizeof(program))
		return error_sys("Failed to write a program to execute");
	return NULL;
}

/* The container's own limits on such files (vm.memfd_noexec) do not hold for ours. */
static struct cr_error *make_program(const struct restore *restore, int *ret)
{
	char path[64];
	_cleanup_close_ int fd = (int)syscall(SYS_memfd_create, "stand-in", MFD_CLOEXEC);

	if (fd < 0)
		return error_sys("Failed to make a program to execute");
	TRY(write_program(restore, fd));
	/* nobody may execute what somebody may write */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	*ret = open(path, O_RDONLY | O_CLOEXEC);
	return *ret < 0 ? error_sys("Failed to open a program to execute") : NULL;
}

/* Everything that is open stays open but what is to be closed by execve(2): not the channel. */
static void keep_channel(struct program *p, int channel, bool keep)
{
	program_call(p, "keep the channel", SYS_fcntl, (uint64_t)channel, F_SETFD,
		     keep ? 0 : FD_CLOEXEC);
}

static struct cr_error *await_breakpoint(pid_t tid)
{
	struct stop stop;

	for (;;) {
		TRY(task_wait(tid, &stop));
		if (stop.reason == STOP_SIGNAL && stop.signal == SIGTRAP)
			return NULL;
		TRY(task_continue(tid, 0));
	}
}

static struct cr_error *execute(struct restore *restore, int number)
{
	struct program *p = restore->program;
	uint64_t words[] = {program_data(p, "lxc-cr", sizeof("lxc-cr")), 0};
	uint64_t empty = program_data(p, "", 1), list = program_data(p, words, sizeof(words));
	struct arch_regs regs;

	program_call(p, "execute a stand-in", SYS_execveat, (uint64_t)number, empty, list,
		     list + sizeof(words[0]), AT_EMPTY_PATH);
	TRY(program_start(p));
	TRY(await_breakpoint(p->tid));
	TRY(task_get_regs(p->tid, &regs));
	if (arch_ip(&regs) - place(restore) <= sizeof(struct stand_in))
		return NULL;
	return error_remedy(
		error_new(CR_HOST, "Task %d could not execute a file in memory", p->tid),
		"It shared memory with others before it executed its program; a "
		"security module may forbid to execute such files");
}

/* Only now: the program area must be there. */
static struct cr_error *forget_program(struct restore *restore)
{
	program_call(restore->program, "unmap the stand-in", SYS_munmap, place(restore), PAGE);
	keep_channel(restore->program, restore->channel.theirs, false);
	return program_run(restore->program);
}

struct cr_error *stand_in_execute(struct restore *restore, struct process *process)
{
	pid_t tid = process_leader(process)->host_tid;
	_cleanup_close_ int fd = -1, proc = -1;
	struct list maps = {0};
	int number;

	restore_begin(restore, process);
	TRY(make_program(restore, &fd));
	TRY(restore_lend(restore, fd, &number));
	program_call(restore->program, "close it when it runs", SYS_fcntl, (uint64_t)number,
		     F_SETFD, FD_CLOEXEC);
	keep_channel(restore->program, restore->channel.theirs, true);
	TRY(program_run(restore->program));
	TRY(execute(restore, number));
	TRY(proc_open(tid, tid, &proc));
	TRY(proc_maps(proc, restore->image.pool, &maps));
	TRY(special_find(restore->image.pool, &maps, &process->special));
	TRY(takeover_equip(restore, tid, &process->special));
	return forget_program(restore);
}
