/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether somebody has written a setting of a network, as by sysctl(8): to read hundreds of them again
 * takes longer than all else that is done about a network inside the stop. The kernel asks BPF programs
 * of the writer's cgroups whether it may; ours lets everybody, and counts.
 */
#include <linux/bpf.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../api.h"
#include "../cleanup.h"
#include "bpf_program.h"

static int call(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* One number, which whoever has the descriptor sees through mmap(2). */
static int make_counter(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.map_flags = BPF_F_MMAPABLE,
		.key_size = sizeof(uint32_t),
		.value_size = sizeof(uint64_t),
		.max_entries = 1,
		.map_name = "setting_writes",
	};

	return call(BPF_MAP_CREATE, &attr);
}

/* How the names begin that count. */
static int32_t wanted_beginning(void)
{
	int32_t beginning;

	memcpy(&beginning, "net/", sizeof(beginning));
	return beginning;
}

static int load_program(int counter)
{
	enum { RESULT, CONTEXT, NAME, SIZE, FLAGS, PLACE = CONTEXT, ONE = NAME, FRAME = 10 };
	enum { ROOM = 8 }; /* for a name: the rest of it is cut off */
	const struct bpf_insn insns[] = {
		bpf_insn_of(BPF_LDX | BPF_MEM | BPF_W, RESULT, CONTEXT,
			    offsetof(struct bpf_sysctl, write), 0),
		bpf_insn_of(BPF_JMP | BPF_JEQ | BPF_K, RESULT, 0, 12, 0),
		/* kernels before 6.3 give the helper no memory that nobody has written; a constant may
		 * be taken for what is there behind the call, too */
		bpf_insn_of(BPF_STX | BPF_MEM | BPF_DW, FRAME, RESULT, -ROOM, 0),
		bpf_insn_of(BPF_ALU64 | BPF_MOV | BPF_X, NAME, FRAME, 0, 0),
		bpf_insn_of(BPF_ALU64 | BPF_ADD | BPF_K, NAME, 0, 0, -ROOM),
		bpf_insn_of(BPF_ALU64 | BPF_MOV | BPF_K, SIZE, 0, 0, ROOM),
		bpf_insn_of(BPF_ALU64 | BPF_MOV | BPF_K, FLAGS, 0, 0, 0),
		bpf_insn_of(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_sysctl_get_name),
		bpf_insn_of(BPF_LDX | BPF_MEM | BPF_W, RESULT, FRAME, -ROOM, 0),
		bpf_insn_of(BPF_JMP | BPF_JNE | BPF_K, RESULT, 0, 4, wanted_beginning()),
		/* the only instruction of 64 bits: two in a row */
		bpf_insn_of(BPF_LD | BPF_IMM | BPF_DW, PLACE, BPF_PSEUDO_MAP_VALUE, 0, counter),
		bpf_insn_of(0, 0, 0, 0, 0),
		bpf_insn_of(BPF_ALU64 | BPF_MOV | BPF_K, ONE, 0, 0, 1),
		bpf_insn_of(BPF_STX | BPF_ATOMIC | BPF_DW, PLACE, ONE, 0, BPF_ADD),
		/* it may */
		bpf_insn_of(BPF_ALU64 | BPF_MOV | BPF_K, RESULT, 0, 0, 1),
		bpf_insn_of(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SYSCTL,
		.expected_attach_type = BPF_CGROUP_SYSCTL,
		.insns = (uintptr_t)insns,
		.insn_cnt = sizeof(insns) / sizeof(insns[0]),
		.license = (uintptr_t) "",
		.prog_name = "setting_writes",
	};

	return bpf_program_try(&attr);
}

static int link_to(int cgroup_fd, int program)
{
	union bpf_attr attr = {
		.link_create.prog_fd = (uint32_t)program,
		.link_create.target_fd = (uint32_t)cgroup_fd,
		.link_create.attach_type = BPF_CGROUP_SYSCTL,
	};

	return call(BPF_LINK_CREATE, &attr);
}

int cr_count_setting_writes(int cgroup_fd, int *counter_fd, int *link_fd)
{
	_cleanup_close_ int counter = make_counter(), program = -1;

	if (counter < 0)
		return -errno;
	program = load_program(counter);
	if (program < 0)
		return -errno;
	*link_fd = link_to(cgroup_fd, program);
	if (*link_fd < 0)
		return -errno;
	*counter_fd = steal_fd(&counter);
	return 0;
}
