/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An address space: its VMAs, the contents of its private pages, and the shared memory it maps. */
#ifndef CR_MEMORY_H
#define CR_MEMORY_H

#include "../dump.h"
#include "../restore.h"
#include "numa_policy.h"

/* What a VMA shows. */
enum vma_type {
	VMA_ANONYMOUS,	  /* private, no file */
	VMA_FILE_PRIVATE, /* a file, with private copies of what was written */
	VMA_FILE_SHARED,
	VMA_SHARED,  /* shared anonymous memory: object says which */
	VMA_SPECIAL, /* vvar, vdso: made by the kernel, only moved */
	VMA_TYPES,
};

struct vma {
	uint64_t start, end;
	uint32_t protection; /* PROT_... */
	uint32_t type;	     /* enum vma_type */
	uint64_t flags;	     /* the kernel's VM_... that a restart gives back: memory_flags.h */
	uint64_t offset;     /* in the file or object, bytes */
	uint64_t huge_page;  /* anonymous hugetlb mappings: bytes; 0: ordinary pages */
	uint32_t object;   /* contents.h: what a file mapping or VMA_SHARED shows, 0: the path's */
	struct bytes name; /* path, or [vdso] and the like */
	struct bytes given_name; /* PR_SET_VMA_ANON_NAME, with its NUL: empty is one too */
	uint64_t file_size;  /* of the file at checkpoint: a mapped file must not have changed */
	uint64_t file_mtime; /* ns */
	struct numa_policy policy;
	uint32_t key;	      /* memory protection key */
	uint32_t description; /* the open file description that is mapped; 0: any will do */
	uint64_t kernel_file; /* dump only: struct file of the kernel */
};

struct memory_map {
	uint64_t start_code, end_code, start_data, end_data;
	uint64_t start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end;
	struct bytes auxv;
	struct bytes exe;
	uint64_t exe_size, exe_mtime;
	uint32_t exe_object;  /* contents.h; 0: the path's */
	struct list vmas;     /* struct vma, ascending */
	struct list extents;  /* struct extent, by page, ascending: contents of private pages */
	struct list guards;   /* struct guard, by page, ascending: MADV_GUARD_INSTALL */
	uint32_t lock_future; /* mlockall(2): MCL_FUTURE, MCL_ONFAULT */
	uint32_t keys;	      /* memory protection keys it has allocated, a bit each */
	uint32_t execute_only_key; /* the one that the kernel has taken; 0: none */
	uint32_t merge_any;	   /* prctl(2) PR_SET_MEMORY_MERGE */
	struct list birth;	   /* restart only: what it is filled with first, memory_birth.c */
	/* dump only: first and last of its children that share pages with it, once copied */
	struct process *eldest, *youngest;
	bool has_kin; /* dump only: another process may share pages copy-on-write */
};

/* The kernel's VM_ flags as images have them; a bit that no image has: unknown. memory_flags.c */
struct cr_error *memory_translate_flags(struct dump *dump, uint64_t *flags);

extern const struct kind memory_kind;

/* Mappings of open file descriptions that somebody has open, or that have locks; when all of those
 * are known. */
void memory_find_descriptions(struct dump *dump);
/* Set has_kin everywhere; before the pages are copied. */
struct cr_error *memory_find_kin(struct dump *dump);
/* Copy what collect_states() has found; pages that a child shares with its parent are saved once.
 */
struct cr_error *memory_copy_pages(struct dump *dump, struct process *process);

/* Do they stem from one execve(2)? false when one is not known. */
bool memory_is_kin(const struct memory_map *a, const struct memory_map *b);
/* What @process has from its parent by fork(2): the parent's memory, or NULL when it has executed
 * another program. */
const struct memory_map *memory_inherited(const struct process *process);

/* Is page number @page of process @context a private copy of a file's page, so that zeros in it
 * matter? */
bool memory_hides_file(const void *context, uint64_t page);
/* Hostile input: mappings ascend, pages lie in mappings and in the pages file. */
struct cr_error *memory_validate(struct image *image, struct process *process);
struct cr_error *extents_validate(const struct image *image, const struct list *extents);

/* The size of a hugetlb page as mmap(2) and memfd_create(2) want it in their flags. */
uint64_t memory_huge_size(uint64_t huge_page);

/*
 * Build the address space of @process in its leader, which has a copy of the memory of whoever
 * cloned it.
 */
struct cr_error *memory_restore(struct restore *restore, struct process *process);
/* Where its vdso lies in the end. */
uint64_t memory_vdso(const struct process *process);
/* Pages into place, after the VMAs stand. memory_fill.c */
struct cr_error *memory_fill(struct restore *restore, struct process *process);
/* Pages for its children to be born with: see memory_birth.c. */
struct cr_error *memory_find_birth(struct restore *restore, struct process *process);
/* What @process is filled with before its children are cloned: struct extent. */
const struct list *memory_birth(const struct process *process);
/* Its own pages, where those differ. */
struct cr_error *memory_fill_own(struct restore *restore, struct process *process);
/* Names that programs have given to memory: memory_names.c. */
struct cr_error *memory_name_dump(struct dump *dump, uint64_t address, struct bytes *ret);
struct cr_error *memory_name_validate(const struct vma *vma);
struct cr_error *memory_names_restore(struct restore *restore, const struct memory_map *memory);

/* What may only be set when nobody is cloned from this address space any more. */
struct cr_error *memory_finish(struct restore *restore, struct process *process);

#endif
