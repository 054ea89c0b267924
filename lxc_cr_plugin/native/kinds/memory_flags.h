/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's VM_ flags (include/linux/mm.h) that matter here; their values have been stable
 * since 2.6. */
#ifndef CR_MEMORY_FLAGS_H
#define CR_MEMORY_FLAGS_H

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8 /* Linux 6.11 */
#endif

#ifndef SYS_mseal
#define SYS_mseal 462 /* Linux 6.10 */
#endif

#define VM_SHARED	0x8ull
#define VM_MAYWRITE	0x20ull
#define VM_MAYSHARE	0x80ull
#define VM_GROWSDOWN	0x100ull
#define VM_UFFD_MISSING 0x200ull
#define VM_PFNMAP	0x400ull
#define VM_UFFD_WP	0x1000ull
#define VM_MAYBE_GUARD	0x800ull /* Linux 6.19, VM_DENYWRITE before 6.0 */
#define VM_LOCKED	0x2000ull
#define VM_IO		0x4000ull
#define VM_SEQ_READ	0x8000ull
#define VM_RAND_READ	0x10000ull
#define VM_DONTCOPY	0x20000ull
#define VM_DONTEXPAND	0x40000ull
#define VM_LOCKONFAULT	0x80000ull
#define VM_ACCOUNT	0x100000ull
#define VM_NORESERVE	0x200000ull
#define VM_HUGETLB	0x400000ull
#define VM_SYNC		0x800000ull
#define VM_WIPEONFORK	0x2000000ull
#define VM_DONTDUMP	0x4000000ull
#define VM_SOFTDIRTY	0x8000000ull
#define VM_MIXEDMAP	0x10000000ull
#define VM_HUGEPAGE	0x20000000ull
#define VM_NOHUGEPAGE	0x40000000ull
#define VM_MERGEABLE	0x80000000ull

/* The memory protection key, four bits. */
#define VM_PKEY_SHIFT 32
#define VM_PKEY	      (0xfull << VM_PKEY_SHIFT)

/* MAP_DROPPABLE and mseal(2), as images have them; the kernel's own bits are found out:
 * memory_translate_flags(). */
#define VM_DROPPABLE (1ull << 40)
#define VM_SEALED    (1ull << 42)

/* Given back by madvise(2), mlock2(2), mseal(2) and mmap(2) flags. */
#define VM_RESTORED                                                                                \
	(VM_GROWSDOWN | VM_LOCKED | VM_LOCKONFAULT | VM_NORESERVE | VM_SEQ_READ | VM_RAND_READ |   \
	 VM_DONTCOPY | VM_WIPEONFORK | VM_DONTDUMP | VM_HUGEPAGE | VM_NOHUGEPAGE | VM_MERGEABLE |  \
	 VM_ACCOUNT | VM_HUGETLB | VM_MAYBE_GUARD | VM_DROPPABLE | VM_SEALED)

/* Follow from what the mapping is, or are the kernel's own business. */
#define VM_IMPLIED (0xffull | VM_DONTEXPAND | VM_SOFTDIRTY)

#endif
