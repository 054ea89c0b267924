/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VMAs of a process with their flags, read by a BPF iterator (iter/task_vma). The same is in
 * /proc/PID/smaps, but there the kernel walks all page tables, and /proc/PID/maps leaves the flags
 * out.
 */
#ifndef CR_KERNEL_VMAS_H
#define CR_KERNEL_VMAS_H

#include <stdint.h>
#include <sys/types.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

struct kernel_vma {
	int32_t tgid;
	uint64_t start;
	uint64_t end;
	/* VM_* of the kernel (include/linux/mm.h): VM_READ 1 ... VM_DONTFORK 0x20000. They are no
	 * ABI: only the low 28 or so have stood still since 6.1; see VmFlags in proc(5) for the
	 * ones that are one. */
	uint64_t flags;
	uint64_t policy; /* struct mempolicy, numa.h; 0: none */
	uint64_t file;	 /* struct file that is mapped; 0: none */
	uint64_t locks;	 /* struct file_lock_context of its inode; 0: it never had any */
	uint64_t name;	 /* struct anon_vma_name, PR_SET_VMA_ANON_NAME; 0: none */
};

struct kernel_vma_program; /* the loaded program, one for all processes */
struct kernel_vma_reader;  /* the program linked to one process */

/* Parses BTF, assembles and loads. Takes tens of milliseconds: not inside the stop. */
struct cr_error *kernel_vma_program_open(const struct btf *btf, struct kernel_vma_program **ret);
void kernel_vma_program_close(
	struct kernel_vma_program *program); /* NULL is fine; readers live on */

/* Cheap, but done before the stop too. @tgid as the caller's pid namespace knows it; it need not
 * exist yet. */
struct cr_error *kernel_vma_reader_open(struct kernel_vma_program *program, pid_t tgid,
					struct kernel_vma_reader **ret);
void kernel_vma_reader_close(struct kernel_vma_reader *reader); /* NULL is fine */

/* *ret: list of struct kernel_vma in @pool, by address; the vsyscall page is not among them. Empty
 * when the process has no memory (kernel thread, zombie) or is gone. One instant only if the
 * process stands still. */
struct cr_error *kernel_vma_reader_read(struct kernel_vma_reader *reader, struct pool *pool,
					struct list *ret);

/* With the NUL that ends it. */
enum { KERNEL_VMA_NAME_MAX = 80 };

/* What kernel_vma.name stands for; CR_GONE when it is no name any more: the process must stand still.
 * *len includes the NUL. */
struct cr_error *kernel_vma_name(const struct kernel_vma_program *program, struct kernel_peek *peek,
				 uint64_t address, char name[KERNEL_VMA_NAME_MAX], size_t *len);

static inline void cleanup_kernel_vma_program(struct kernel_vma_program **program)
{
	kernel_vma_program_close(*program);
}

static inline void cleanup_kernel_vma_reader(struct kernel_vma_reader **reader)
{
	kernel_vma_reader_close(*reader);
}

#define _cleanup_kernel_vma_program_ __attribute__((cleanup(cleanup_kernel_vma_program)))
#define _cleanup_kernel_vma_reader_  __attribute__((cleanup(cleanup_kernel_vma_reader)))

#endif
