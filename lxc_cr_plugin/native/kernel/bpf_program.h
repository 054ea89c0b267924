/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Getting a BPF program into the kernel, also where lockdown forbids the helper that reads kernel
 * memory: there it is replaced by loads through a pointer to a struct that the verifier knows, which
 * lockdown leaves alone (bpf_rdonly_cast(), since Linux 6.2).
 */
#ifndef CR_KERNEL_BPF_PROGRAM_H
#define CR_KERNEL_BPF_PROGRAM_H

#include <linux/bpf.h>

#include "../error.h"
#include "btf.h"

/* Registers have four bits. */
static inline struct bpf_insn bpf_insn_of(unsigned int opcode, unsigned int dst, unsigned int src,
					  int offset, int32_t immediate)
{
	return (struct bpf_insn){
		.code = (uint8_t)opcode,
		.dst_reg = (uint8_t)(dst & 15),
		.src_reg = (uint8_t)(src & 15),
		.off = (int16_t)offset,
		.imm = immediate,
	};
}

/* The descriptor of the program, or -1 with errno: for whoever has another way. */
int bpf_program_try(union bpf_attr *attr);

/* @what: for messages, "iterator bpf_iter_task". @btf: NULL only if there is no other way needed.
 * CR_HOST with a remedy when this kernel refuses. */
struct cr_error *bpf_program_load(const struct btf *btf, union bpf_attr *attr, const char *what,
				  int *ret);

#endif
