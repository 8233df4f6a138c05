//! Reads a library as a file and says what it is, before any of its code runs.
//!
//! In: the bytes of the file. Out: what the library says of itself, or in words why it will not be loaded. A file that is cut
//! off or has holes would kill the server inside dlopen with SIGBUS, so everything the loader reads is looked for first.
//!
//! Only ELF is understood. On systems with another format every library is refused here.

use std::borrow::Cow;
use std::fmt;

use handler_api::abi;
use object::Endianness;
use object::elf;
use object::pod;
use object::read::elf::{Dyn, FileHeader, GnuHashTable, HashTable, ProgramHeader, SectionHeader, Sym};

/// What a library says of itself in `wsh_handler_info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Shown to people; the resource path comes from the file name.
    pub name: String,
    /// Shown to people.
    pub version: String,
    /// What it was made with, such as `c` or `handler-api 0.1.0`.
    pub sdk: String,
    /// Always the server's own, or the library would have been refused.
    pub abi_major: u16,
    /// Of the header it was compiled with; may be above or below the server's.
    pub abi_minor: u16,
    /// `abi::WSH_LIBRARY_*`, with bits of a later minor kept.
    pub flags: u32,
    /// Version of the state it exports; 0 if it exports none.
    pub state_version: u32,
}

impl LibraryInfo {
    /// Its sessions can go on with the code of another version.
    pub fn migrates(&self) -> bool {
        self.flags & abi::WSH_LIBRARY_MIGRATES != 0
    }

    /// Its sessions are to be closed when it is replaced.
    pub fn restarts(&self) -> bool {
        self.flags & abi::WSH_LIBRARY_RESTARTS != 0
    }

    /// Its code may still run after shutdown, so it must stay mapped.
    pub fn never_unloads(&self) -> bool {
        self.flags & abi::WSH_LIBRARY_NO_UNLOAD != 0
    }
}

/// Why a file will not be loaded. `Display` says who did what and, where it can be known, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckError {
    /// There are no bytes.
    Empty,
    /// The file ends before something that it announces.
    Truncated {
        /// Bytes that the file has.
        size: u64,
        /// What is announced, such as `its segment 1`.
        part: String,
        /// Bytes that the file would need for it.
        needs: u64,
    },
    /// Something that cannot be empty is all zeros, as in a file that is written out of order.
    Hole(&'static str),
    /// Another kind of file; what it looks like.
    NotLibrary(&'static str),
    /// An ELF file for another machine.
    WrongMachine {
        /// What the file is for.
        library: String,
        /// What the server is for.
        server: &'static str,
    },
    /// It contradicts itself in this part.
    Malformed(&'static str),
    /// A symbol is missing or cannot be used.
    Symbol {
        /// Its name.
        name: &'static str,
        /// What is wrong with it, and what to do.
        wrong: &'static str,
    },
    /// The bytes of `wsh_handler_info` do not begin as they must.
    Magic(&'static str),
    /// `wsh_handler_info` is shorter than the first version of it.
    InfoSize {
        /// What it says of its own size.
        library: u32,
        /// The smallest that a server can work with.
        server: u32,
    },
    /// Made for another ABI.
    AbiMajor {
        /// The library's.
        library: u16,
        /// The server's.
        server: u16,
    },
    /// It needs functions that came to the ABI later than this server.
    HostTooOld {
        /// The minor it needs.
        library: u16,
        /// The server's.
        server: u16,
    },
    /// A panic in it would end the process.
    PanicAborts,
    /// One of its texts is not printable UTF-8; which one.
    Text(&'static str),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty: it is still being written, or copying it failed"),
            Self::Truncated { size, part, needs } => write!(
                f,
                "the file ends after {size} bytes, but {part} needs {needs}: it is truncated or still being written"
            ),
            Self::Hole(part) => write!(f, "{part} is all zeros: the file has a hole, it is still being written?"),
            Self::NotLibrary(kind) => write!(f, "it is no shared library, but {kind}"),
            Self::WrongMachine { library, server } => write!(f, "it is built for {library}, this server for {server}"),
            Self::Malformed(part) => write!(f, "{part} contradicts the rest of the file: it is damaged"),
            Self::Symbol { name, wrong } => write!(f, "the library {wrong} `{name}`{}", hint_for(name)),
            Self::Magic(wrong) => write!(f, "`{}` {wrong}", abi::INFO_SYMBOL),
            Self::InfoSize { library, server } => write!(
                f,
                "`{}` says that it has {library} bytes, but has {server} in every version of wsh.h: it was written by hand?",
                abi::INFO_SYMBOL
            ),
            Self::AbiMajor { library, server } => write!(
                f,
                "the library speaks ABI {library}, this server ABI {server}: build it with the handler-api of this server"
            ),
            Self::HostTooOld { library, server } => {
                let major = abi::WSH_ABI_MAJOR;
                write!(f, "the library needs a server of ABI {major}.{library} or later, this one has {major}.{server}")
            }
            Self::PanicAborts => f.write_str(
                "the library is built with panic = \"abort\", so that one panic would end the server: build it with \
                 panic = \"unwind\"",
            ),
            Self::Text(field) => write!(f, "the {field} in `{}` is not printable UTF-8", abi::INFO_SYMBOL),
        }
    }
}

impl std::error::Error for CheckError {}

fn hint_for(symbol: &str) -> &'static str {
    if symbol == abi::INFO_SYMBOL {
        ": export_handler!(YourHandler) makes it in Rust, WSH_HANDLER_INFO(...) in C"
    } else {
        ": export_handler!(YourHandler) makes it in Rust; in C write it as a function with WSH_EXPORT"
    }
}

#[cfg(target_pointer_width = "64")]
type Header = elf::FileHeader64<Endianness>;
#[cfg(target_pointer_width = "32")]
type Header = elf::FileHeader32<Endianness>;
type Segment = <Header as FileHeader>::ProgramHeader;
type Section = <Header as FileHeader>::SectionHeader;
type Dynamic = <Header as FileHeader>::Dyn;
type Symbol = <Header as FileHeader>::Sym;

/// Checks a library file that was read whole. Runs nothing of it, reads nothing beyond `bytes`, never panics.
///
/// # Errors
/// The first thing that is wrong with the file, from the outside in: kind of file, machine, what the loader maps and reads,
/// the two symbols, the ABI.
///
/// What is loaded may be a copy without the wish never to be unloaded, so that one is checked too: in a file whose parts lie over each
/// other, taking the wish out changes something else.
pub fn check(bytes: &[u8]) -> Result<LibraryInfo, CheckError> {
    let info = check_as_it_is(bytes)?;
    let wishes = never_unload_flags(bytes);
    if !wishes.is_empty() {
        let mut without = bytes.to_vec();
        for (at, value) in wishes {
            without[at..at + value.len()].copy_from_slice(&value);
        }
        if check_as_it_is(&without).as_ref() != Ok(&info) {
            return Err(CheckError::Malformed("its dynamic section"));
        }
    }
    Ok(info)
}

fn check_as_it_is(bytes: &[u8]) -> Result<LibraryInfo, CheckError> {
    let bytes = aligned(bytes);
    let elf = Elf::open(&bytes)?;
    let info = info(&elf)?;
    entry(&elf)?;
    Ok(info)
}

/// Where in the file the flags of `DT_FLAGS_1` lie, if they ask the loader never to unload the library: offset of each value
/// and its bytes without that wish. Empty for a file that [`check`] refuses.
pub fn never_unload_flags(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let bytes = aligned(bytes);
    let Ok(elf) = Elf::open(&bytes) else { return Vec::new() };
    let keep = |flags: u64| flags & !elf::DF_1_NODELETE.0;
    let size = size_of::<Dynamic>();
    let flags =
        elf.dynamic.iter().enumerate().filter(|(_, entry)| entry.d_tag(elf.endian) == elf::DT_FLAGS_1);
    flags
        .filter(|(_, entry)| keep(entry.val(elf.endian)) != entry.val(elf.endian))
        .map(|(index, entry)| {
            let value = keep(entry.val(elf.endian));
            // Tag and value are a word each. check() refuses a file of another endianness, so native order it is.
            let value = usize::try_from(value).unwrap_or_default().to_ne_bytes().to_vec();
            (elf.dynamic_at + index * size + size / 2, value)
        })
        .collect()
}

/// The tables of a file are aligned relative to its start, and are read in place only where that holds in memory too.
fn aligned(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.as_ptr().addr().is_multiple_of(align_of::<u64>()) {
        Cow::Borrowed(bytes)
    } else {
        Cow::Owned(bytes.to_vec())
    }
}

/// An ELF shared library of this machine whose segments, sections and dynamic section lie in the file.
struct Elf<'a> {
    bytes: &'a [u8],
    endian: Endianness,
    header: &'a Header,
    segments: &'a [Segment],
    dynamic: &'a [Dynamic],
    dynamic_at: usize,
}

impl<'a> Elf<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, CheckError> {
        let header = header(bytes)?;
        let endian = header.endian().map_err(|_| CheckError::Malformed("its header"))?;
        let mut elf = Elf { bytes, endian, header, segments: &[], dynamic: &[], dynamic_at: 0 };
        elf.machine_and_kind()?;
        elf.segments = elf.segments()?;
        elf.sections()?;
        (elf.dynamic, elf.dynamic_at) = elf.dynamic()?;
        elf.no_program()?;
        elf.what_the_loader_reads()?;
        Ok(elf)
    }

    fn machine_and_kind(&self) -> Result<(), CheckError> {
        let machine = self.header.e_machine(self.endian);
        if native_machine().is_some_and(|native| native != machine) {
            let library = machine_name(machine);
            return Err(CheckError::WrongMachine { library, server: std::env::consts::ARCH });
        }
        let system = self.header.e_ident().os_abi;
        if system != elf::ELFOSABI_NONE && system != elf::ELFOSABI_GNU && cfg!(target_os = "linux") {
            return Err(CheckError::NotLibrary("an ELF file of another operating system"));
        }
        match self.header.e_type(self.endian) {
            elf::ET_DYN => Ok(()),
            elf::ET_REL => Err(CheckError::NotLibrary("an object file (.o): link it with -shared")),
            elf::ET_EXEC => Err(CheckError::NotLibrary(PROGRAM)),
            elf::ET_CORE => Err(CheckError::NotLibrary("a core dump")),
            _ => Err(CheckError::Malformed("its header")),
        }
    }

    /// The segments, each of them wholly in the file.
    fn segments(&self) -> Result<&'a [Segment], CheckError> {
        let (endian, header) = (self.endian, self.header);
        let size = u64::from(header.e_phnum(endian)) * u64::from(header.e_phentsize(endian));
        self.inside("its segment table", wide(header.e_phoff(endian)), size)?;
        let segments = header
            .program_headers(endian, self.bytes)
            .map_err(|_| CheckError::Malformed("its segment table"))?;
        for (index, segment) in segments.iter().enumerate() {
            if segment.p_type(endian) != elf::PT_LOAD {
                continue;
            }
            let (offset, size) = segment.file_range(endian);
            self.inside(format_args!("its segment {index}"), offset, size)?;
            let memory = wide(segment.p_memsz(endian));
            let start = wide(segment.p_vaddr(endian));
            if memory < size || start.checked_add(memory).is_none() {
                return Err(CheckError::Malformed("its segment table"));
            }
        }
        if !segments.iter().any(|segment| segment.p_type(endian) == elf::PT_LOAD) {
            return Err(CheckError::Malformed("its segment table"));
        }
        Ok(segments)
    }

    /// The loader does not need the sections, but a file whose end is missing shows it here.
    fn sections(&self) -> Result<&'a [Section], CheckError> {
        let (endian, header) = (self.endian, self.header);
        let offset = wide(header.e_shoff(endian));
        if offset == 0 {
            return Ok(&[]);
        }
        let size = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
        self.inside("its section table", offset, size)?;
        let sections = header
            .section_headers(endian, self.bytes)
            .map_err(|_| CheckError::Malformed("its section table"))?;
        for (index, section) in sections.iter().enumerate() {
            if let Some((offset, size)) = section.file_range(endian) {
                self.inside(format_args!("its section {index}"), offset, size)?;
            }
        }
        // The first entry is empty by definition and every other one has a type.
        if sections.len() > 1 && sections.iter().all(|section| section.sh_type(endian) == elf::SHT_NULL) {
            return Err(CheckError::Hole("its section table"));
        }
        Ok(sections)
    }

    /// The dynamic section as the loader finds it, which is by address, and where it lies in the file.
    fn dynamic(&self) -> Result<(&'a [Dynamic], usize), CheckError> {
        const PART: &str = "its dynamic section";
        let segment = self.segments.iter().find(|segment| segment.p_type(self.endian) == elf::PT_DYNAMIC);
        let Some(segment) = segment else {
            return Err(CheckError::NotLibrary("a statically linked file: link it with -shared"));
        };
        let address = wide(segment.p_vaddr(self.endian));
        let size = wide(segment.p_memsz(self.endian));
        let bytes = self.at(address, Some(size)).filter(|bytes| !bytes.is_empty());
        // Nothing lies nowhere: an empty slice need not point into the file.
        let bytes = bytes.ok_or(CheckError::Malformed(PART))?;
        let at = bytes.as_ptr().addr() - self.bytes.as_ptr().addr();
        let all = pod::slice_from_all_bytes::<Dynamic>(bytes).map_err(|()| CheckError::Malformed(PART))?;
        let end = all.iter().position(|entry| entry.d_tag(self.endian) == elf::DT_NULL);
        match end {
            Some(0) => Err(CheckError::Hole(PART)),
            Some(end) => Ok((&all[..end], at)),
            // The loader would read on behind it.
            None => Err(CheckError::Malformed(PART)),
        }
    }

    /// A position-independent program looks like a library but for one flag.
    fn no_program(&self) -> Result<(), CheckError> {
        let flags = self.tag(elf::DT_FLAGS_1).unwrap_or_default();
        if flags & elf::DF_1_PIE.0 != 0 { Err(CheckError::NotLibrary(PROGRAM)) } else { Ok(()) }
    }

    /// The tables that the loader follows without asking whether they are there.
    fn what_the_loader_reads(&self) -> Result<(), CheckError> {
        let tables = [
            (elf::DT_RELA, elf::DT_RELASZ),
            (elf::DT_REL, elf::DT_RELSZ),
            (elf::DT_RELR, elf::DT_RELRSZ),
            (elf::DT_JMPREL, elf::DT_PLTRELSZ),
            (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ),
            (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ),
        ];
        for (table, size) in tables {
            let (Some(table), Some(size)) = (self.tag(table), self.tag(size)) else { continue };
            if size > 0 && self.at(table, Some(size)).is_none() {
                return Err(CheckError::Malformed("a table of its dynamic section"));
            }
        }
        let strings = self.strings()?;
        let mut needed = self.dynamic.iter().filter(|entry| entry.d_tag(self.endian) == elf::DT_NEEDED);
        let named =
            |entry: &Dynamic| usize::try_from(entry.val(self.endian)).is_ok_and(|name| name < strings.len());
        if needed.all(named) { Ok(()) } else { Err(CheckError::Malformed("its list of needed libraries")) }
    }

    /// The names of the dynamic symbols; ends with a NUL.
    fn strings(&self) -> Result<&'a [u8], CheckError> {
        const PART: &str = "its table of symbol names";
        let strings = match (self.tag(elf::DT_STRTAB), self.tag(elf::DT_STRSZ)) {
            (Some(address), Some(size)) => self.at(address, Some(size)),
            _ => None,
        };
        let strings = strings.ok_or(CheckError::Malformed(PART))?;
        if strings.len() > 1 && strings.iter().all(|byte| *byte == 0) {
            return Err(CheckError::Hole(PART));
        }
        if strings.last() == Some(&0) { Ok(strings) } else { Err(CheckError::Malformed(PART)) }
    }

    /// The dynamic symbols. How many there are is only written in the hash tables.
    fn symbols(&self) -> Result<&'a [Symbol], CheckError> {
        const PART: &str = "its symbol table";
        let malformed = CheckError::Malformed(PART);
        let count = if let Some(address) = self.tag(elf::DT_GNU_HASH) {
            let bytes = self.at(address, None).ok_or_else(|| malformed.clone())?;
            let table = GnuHashTable::<Header>::parse(self.endian, bytes).map_err(|_| malformed.clone())?;
            // None is a table without defined symbols.
            table.symbol_table_length(self.endian).unwrap_or_default()
        } else if let Some(address) = self.tag(elf::DT_HASH) {
            let bytes = self.at(address, None).ok_or_else(|| malformed.clone())?;
            let table = HashTable::<Header>::parse(self.endian, bytes).map_err(|_| malformed.clone())?;
            table.symbol_table_length()
        } else {
            return Err(malformed);
        };
        let address = self.tag(elf::DT_SYMTAB).ok_or_else(|| malformed.clone())?;
        let bytes = self.at(address, None).ok_or_else(|| malformed.clone())?;
        let (symbols, _) = pod::slice_from_bytes(bytes, count as usize).map_err(|()| malformed)?;
        Ok(symbols)
    }

    /// The exported symbol of this name.
    fn exported(&self, name: &'static str) -> Result<&'a Symbol, CheckError> {
        let strings = self.strings()?;
        let mut undefined = false;
        for symbol in self.symbols()? {
            if !is_named(symbol, self.endian, strings, name) {
                continue;
            }
            if !symbol.is_undefined(self.endian) && !symbol.is_local() {
                return Ok(symbol);
            }
            undefined |= symbol.is_undefined(self.endian);
        }
        let wrong = match () {
            () if undefined => "uses but does not define",
            () if self.is_hidden(name) => "has but does not export",
            () => "does not export",
        };
        Err(CheckError::Symbol { name, wrong })
    }

    /// Whether the symbol exists without being exported, which is worth telling from its absence.
    fn is_hidden(&self, name: &str) -> bool {
        let Ok(sections) = self.sections() else { return false };
        let table = sections.iter().find(|section| section.sh_type(self.endian) == elf::SHT_SYMTAB);
        let strings = table.and_then(|table| sections.get(table.sh_link(self.endian) as usize));
        let (Some(table), Some(strings)) = (table, strings) else { return false };
        let symbols = table.data_as_array::<Symbol, _>(self.endian, self.bytes);
        let (Ok(symbols), Ok(strings)) = (symbols, strings.data(self.endian, self.bytes)) else {
            return false;
        };
        symbols
            .iter()
            .any(|symbol| is_named(symbol, self.endian, strings, name) && !symbol.is_undefined(self.endian))
    }

    /// The value of a dynamic entry; of the last one, as the loader takes it.
    fn tag(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.dynamic.iter().rfind(|entry| entry.d_tag(self.endian) == tag).map(|entry| entry.val(self.endian))
    }

    fn segment_of(&self, address: u64) -> Option<&'a Segment> {
        self.segments.iter().find(|segment| {
            let start = wide(segment.p_vaddr(self.endian));
            let size = wide(segment.p_memsz(self.endian));
            segment.p_type(self.endian) == elf::PT_LOAD
                && address.checked_sub(start).is_some_and(|at| at < size)
        })
    }

    /// The bytes of the file that are mapped at an address: so many, or all to the end of what is mapped there.
    fn at(&self, address: u64, size: Option<u64>) -> Option<&'a [u8]> {
        let segment = self.segment_of(address)?;
        let bytes = segment.data(self.endian, self.bytes).ok()?;
        let start = wide(segment.p_vaddr(self.endian));
        let rest = bytes.get(usize::try_from(address - start).ok()?..)?;
        match size {
            Some(size) => rest.get(..usize::try_from(size).ok()?),
            None => Some(rest),
        }
    }

    fn inside(&self, part: impl fmt::Display, offset: u64, size: u64) -> Result<(), CheckError> {
        let needs = offset.saturating_add(size);
        if needs <= self.bytes.len() as u64 {
            return Ok(());
        }
        Err(CheckError::Truncated { size: self.bytes.len() as u64, part: part.to_string(), needs })
    }
}

/// Words of the file's class as numbers to calculate with.
fn wide(word: impl Into<u64>) -> u64 {
    word.into()
}

const PROGRAM: &str = "a program: build it with crate-type = [\"cdylib\"], in C with -shared";

/// The name is compared in place, because looking for its end first would take for ever in a table without ends.
fn is_named(symbol: &Symbol, endian: Endianness, strings: &[u8], name: &str) -> bool {
    let Some(rest) = strings.get(symbol.st_name(endian) as usize..) else { return false };
    rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

/// The ELF header of a file for machines like this one.
fn header(bytes: &[u8]) -> Result<&Header, CheckError> {
    if bytes.is_empty() {
        return Err(CheckError::Empty);
    }
    let begin = &bytes[..bytes.len().min(size_of::<Header>())];
    if begin.iter().all(|byte| *byte == 0) {
        return Err(CheckError::Hole("its beginning"));
    }
    if !begin.starts_with(b"\x7fELF") {
        return Err(CheckError::NotLibrary(kind_of(bytes)));
    }
    let truncated = CheckError::Truncated {
        size: bytes.len() as u64,
        part: "its header".into(),
        needs: size_of::<Header>() as u64,
    };
    let (Some(class), Some(order)) = (begin.get(4), begin.get(5)) else { return Err(truncated) };
    let (native_class, native_order) =
        (1 + u8::from(cfg!(target_pointer_width = "64")), 1 + u8::from(cfg!(target_endian = "big")));
    let server = std::env::consts::ARCH;
    match (*class, *order) {
        (1 | 2, order) if order == 3 - native_order => {
            let library = if order == 2 { "a big-endian machine" } else { "a little-endian machine" };
            Err(CheckError::WrongMachine { library: library.into(), server })
        }
        (class, 1 | 2) if class == 3 - native_class => {
            let library = if class == 1 { "a 32-bit machine" } else { "a 64-bit machine" };
            Err(CheckError::WrongMachine { library: library.into(), server })
        }
        _ if bytes.len() < size_of::<Header>() => Err(truncated),
        _ => Header::parse(bytes).map_err(|_| CheckError::Malformed("its header")),
    }
}

/// What a file that is not ELF looks like by its first bytes.
fn kind_of(bytes: &[u8]) -> &'static str {
    const KINDS: [(&[u8], &str); 10] = [
        (b"!<arch>\n", "a static library (.a): build it with crate-type = [\"cdylib\"], in C with -shared"),
        (b"\xcf\xfa\xed\xfe", "a library or program for macOS"),
        (b"\xca\xfe\xba\xbe", "a library or program for macOS"),
        (b"MZ", "a library or program for Windows"),
        (b"#!", "a script"),
        (b"/* GNU ld script", "a script for the linker"),
        (b"BC\xc0\xde", "LLVM bitcode"),
        (b"\x1f\x8b", "a compressed file: unpack it"),
        (b"\x28\xb5\x2f\xfd", "a compressed file: unpack it"),
        (b"PK\x03\x04", "a compressed file: unpack it"),
    ];
    if let Some((_, kind)) = KINDS.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        return kind;
    }
    let begin = &bytes[..bytes.len().min(512)];
    let text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte >= 0x80;
    if begin.iter().all(text) { "a text file" } else { "a file of an unknown kind" }
}

/// What ELF calls the machine this server is built for; `None` if this list does not know it, which leaves it to the loader.
fn native_machine() -> Option<elf::Machine> {
    Some(match std::env::consts::ARCH {
        "x86_64" => elf::EM_X86_64,
        "x86" => elf::EM_386,
        "aarch64" => elf::EM_AARCH64,
        "arm" => elf::EM_ARM,
        "riscv64" | "riscv32" => elf::EM_RISCV,
        "powerpc64" => elf::EM_PPC64,
        "s390x" => elf::EM_S390,
        "loongarch64" => elf::EM_LOONGARCH,
        _ => return None,
    })
}

/// The names that Rust has for machines, so that both sides of the message speak of them alike.
fn machine_name(machine: elf::Machine) -> String {
    let name = match machine {
        elf::EM_X86_64 => "x86_64",
        elf::EM_386 => "x86",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_ARM => "arm",
        elf::EM_RISCV => "riscv",
        elf::EM_PPC64 => "powerpc64",
        elf::EM_S390 => "s390x",
        elf::EM_LOONGARCH => "loongarch64",
        elf::EM_MIPS => "mips",
        elf::EM_SPARCV9 => "sparc64",
        elf::EM_BPF => "BPF",
        other => return format!("machine {} of the ELF list", other.0),
    };
    name.into()
}

/// Finds `wsh_handler_info` in the file and judges it.
fn info(elf: &Elf<'_>) -> Result<LibraryInfo, CheckError> {
    let name = abi::INFO_SYMBOL;
    let symbol = elf.exported(name)?;
    if !matches!(symbol.st_type(), elf::STT_OBJECT | elf::STT_NOTYPE) {
        return Err(CheckError::Symbol { name, wrong: "exports something other than data as" });
    }
    let address = wide(symbol.st_value(elf.endian));
    let Some(bytes) = elf.at(address, None).filter(|bytes| !bytes.is_empty()) else {
        // Memory without bytes in the file is zeroed when the library is loaded.
        let wrong =
            if elf.segment_of(address).is_some() { "has only zeros as" } else { "exports from nowhere" };
        return Err(CheckError::Symbol { name, wrong });
    };
    read_info(bytes)
}

/// Judges the bytes of `wsh_handler_info`, which may be followed by others. Fields are judged in an order in which each one is
/// known to be there: magic, ABI and size lie at the same place in every ABI.
fn read_info(bytes: &[u8]) -> Result<LibraryInfo, CheckError> {
    let short = CheckError::Malformed("the end of `wsh_handler_info`");
    let mut fields = Fields(bytes);
    let magic = fields.take::<8>().ok_or_else(|| short.clone())?;
    if magic != abi::WSH_MAGIC {
        if magic == [0; 8] {
            return Err(CheckError::Hole("`wsh_handler_info`"));
        }
        let text_mode = magic.starts_with(b"WSHLIB");
        return Err(CheckError::Magic(if text_mode {
            "has changed line ends: the file was copied in a text mode, copy it in binary"
        } else {
            "does not begin with WSH_MAGIC: it is not the info of a handler"
        }));
    }
    let info_size = fields.u32().ok_or_else(|| short.clone())?;
    let abi_major = fields.u16().ok_or_else(|| short.clone())?;
    if abi_major != abi::WSH_ABI_MAJOR {
        return Err(CheckError::AbiMajor { library: abi_major, server: abi::WSH_ABI_MAJOR });
    }
    let server = INFO_SIZE_MIN as u32;
    if info_size < server {
        return Err(CheckError::InfoSize { library: info_size, server });
    }
    if bytes.len() < info_size as usize {
        return Err(short);
    }
    let mut rest = || {
        let (abi_minor, min_host_minor, _reserved) = (fields.u16()?, fields.u16()?, fields.u16()?);
        let (flags, state_version, _reserved) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let texts = (fields.take::<32>()?, fields.take::<32>()?, fields.take::<32>()?);
        Some((abi_minor, min_host_minor, flags, state_version, texts))
    };
    let (abi_minor, min_host_minor, flags, state_version, texts) = rest().ok_or(short)?;
    if min_host_minor > abi::WSH_ABI_MINOR {
        return Err(CheckError::HostTooOld { library: min_host_minor, server: abi::WSH_ABI_MINOR });
    }
    if flags & abi::WSH_LIBRARY_PANIC_ABORT != 0 {
        return Err(CheckError::PanicAborts);
    }
    let (name, version, sdk) = (text("name", &texts.0)?, text("version", &texts.1)?, text("sdk", &texts.2)?);
    Ok(LibraryInfo { name, version, sdk, abi_major, abi_minor, flags, state_version })
}

/// The size of the struct in ABI 1.0. Later minors only append.
const INFO_SIZE_MIN: usize = size_of::<abi::wsh_handler_info_t>();

/// Reads the fields of the info one after the other. The struct has no padding, which the contract's own tests assert.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
}

/// A text up to its first NUL. It goes to the log and the status page, so it must not bring control characters.
fn text(field: &'static str, bytes: &[u8]) -> Result<String, CheckError> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| CheckError::Text(field))?;
    if text.chars().any(char::is_control) { Err(CheckError::Text(field)) } else { Ok(text.to_owned()) }
}

/// The entry must be a function in code that the file brings along.
fn entry(elf: &Elf<'_>) -> Result<(), CheckError> {
    let name = abi::ENTRY_SYMBOL;
    let symbol = elf.exported(name)?;
    if symbol.st_type() != elf::STT_FUNC {
        return Err(CheckError::Symbol { name, wrong: "exports something other than a function as" });
    }
    let address = wide(symbol.st_value(elf.endian));
    let segment = elf.segment_of(address);
    let runs = |segment: &Segment| segment.p_flags(elf.endian).0 & elf::PF_X.0 != 0;
    if !segment.is_some_and(runs) || elf.at(address, Some(1)).is_none() {
        return Err(CheckError::Symbol { name, wrong: "exports from outside of its code" });
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    /// A C file with info and entry, to which a test adds what it is about.
    pub(in crate::registry) const SOUND: &str = r#"
        #include "wsh.h"
        WSH_HANDLER_INFO("sound", "1.2.3", 0);
        WSH_EXPORT wsh_status wsh_handler_entry_v1(const wsh_host_api *host, wsh_library *library,
                                                   const wsh_handler_api **handler) {
            (void)host; (void)library; (void)handler;
            return WSH_E_INTERNAL;
        }
    "#;

    /// The header without its declaration of the entry, so that a test can declare it wrongly.
    const HEADER: &str =
        "#define wsh_handler_entry_v1 elsewhere\n#include \"wsh.h\"\n#undef wsh_handler_entry_v1\n";

    const ENTRY: &str = "WSH_EXPORT int wsh_handler_entry_v1(void) { return 0; }";

    /// Compiles a library `name_wsh.so` into the folder.
    pub(in crate::registry) fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let (c, so) = (folder.join(format!("{name}.c")), folder.join(format!("{name}_wsh.so")));
        fs::write(&c, source).unwrap();
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handler-api/include");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-I"]).arg(include).arg("-o").arg(&so).arg(&c).args(flags);
        let output = cc.output().expect("tests need a C compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        so
    }

    fn compiled(source: &str, flags: &[&str]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        fs::read(compile(folder.path(), "it", source, flags)).unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        check(bytes).expect_err("the file is wrong").to_string()
    }

    /// A library whose info is written field by field.
    fn with_info(info: &str) -> Vec<u8> {
        let magic = r#"{ 'W', 'S', 'H', 'L', 'I', 'B', '\r', '\n' }"#;
        let info = info.replace("MAGIC", magic);
        compiled(
            &format!("{HEADER}WSH_EXPORT const wsh_handler_info_t wsh_handler_info = {{ {info} }};\n{ENTRY}"),
            &[],
        )
    }

    /// A library built with either hash table, stripped or without sections is read.
    #[test]
    fn sound_library_is_read() {
        let expected = LibraryInfo {
            name: "sound".into(),
            version: "1.2.3".into(),
            sdk: "c".into(),
            abi_major: abi::WSH_ABI_MAJOR,
            abi_minor: abi::WSH_ABI_MINOR,
            flags: 0,
            state_version: 0,
        };
        for flags in [&["-Wl,--hash-style=sysv"][..], &["-Wl,--hash-style=gnu"], &["-s"], &["-O2", "-flto"]] {
            assert_eq!(check(&compiled(SOUND, flags)).as_ref(), Ok(&expected), "{flags:?}");
        }
        let mut bytes = compiled(SOUND, &[]);
        bytes[0x28..0x30].fill(0);
        bytes[0x3c..0x40].fill(0);
        assert_eq!(check(&bytes).as_ref(), Ok(&expected), "without a section table");
        let shifted = [&[0][..], &bytes].concat();
        assert_eq!(check(&shifted[1..]).as_ref(), Ok(&expected), "at an odd address");
    }

    /// Whatever is not a shared library is called what it is.
    #[test]
    fn other_files_are_named() {
        assert_eq!(refusal(b""), "the file is empty: it is still being written, or copying it failed");
        assert_eq!(
            refusal(&[0; 4096]),
            "its beginning is all zeros: the file has a hole, it is still being written?"
        );
        assert_eq!(refusal(b"not a library\n"), "it is no shared library, but a text file");
        assert_eq!(refusal(b"#!/bin/sh\n"), "it is no shared library, but a script");
        assert_eq!(refusal(b"MZ\x90"), "it is no shared library, but a library or program for Windows");
        assert!(
            refusal(b"!<arch>\n").contains("a static library (.a): build it with crate-type = [\"cdylib\"]")
        );
        assert!(refusal(b"\x7fELF").contains("but its header needs 64: it is truncated"));
    }

    /// An object file and programs of both kinds are told from a library.
    #[test]
    fn programs_and_objects_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let c = folder.path().join("main.c");
        fs::write(&c, "int main(void) { return 0; }").unwrap();
        for (flags, expected) in [
            (&["-c"][..], "it is no shared library, but an object file (.o): link it with -shared"),
            (
                &["-no-pie"],
                "it is no shared library, but a program: build it with crate-type = [\"cdylib\"], in C with -shared",
            ),
            (
                &["-pie", "-fPIE"],
                "it is no shared library, but a program: build it with crate-type = [\"cdylib\"], in C with -shared",
            ),
        ] {
            let out = folder.path().join("out");
            assert!(Command::new("cc").args(flags).arg("-o").arg(&out).arg(&c).status().unwrap().success());
            assert_eq!(refusal(&fs::read(&out).unwrap()), expected, "{flags:?}");
        }
    }

    /// A library for another machine is refused with both names.
    #[test]
    fn other_machine_is_refused() {
        let mut bytes = compiled(SOUND, &[]);
        let (other, name): (u16, _) =
            if cfg!(target_arch = "aarch64") { (62, "x86_64") } else { (183, "aarch64") };
        bytes[18..20].copy_from_slice(&other.to_ne_bytes());
        assert_eq!(
            refusal(&bytes),
            format!("it is built for {name}, this server for {}", std::env::consts::ARCH)
        );
        bytes[4] = if cfg!(target_pointer_width = "64") { 1 } else { 2 };
        assert!(refusal(&bytes).starts_with("it is built for a "));
        bytes[5] = 3 - bytes[5];
        assert!(refusal(&bytes).contains("-endian machine, this server for"));
    }

    /// A file that ends early is refused with how much is missing, wherever it ends.
    #[test]
    fn truncated_file_is_refused() {
        let bytes = compiled(SOUND, &[]);
        let lengths =
            (0..=4096.min(bytes.len() - 1)).chain((0..100).map(|percent| bytes.len() * percent / 100));
        for length in lengths.chain([bytes.len() - 1]) {
            check(&bytes[..length]).expect_err("a truncated file is refused");
        }
        let text = refusal(&bytes[..3000]);
        assert!(text.starts_with("the file ends after 3000 bytes, but its segment "), "{text}");
        assert!(text.ends_with(": it is truncated or still being written"), "{text}");
        assert!(refusal(&bytes[..bytes.len() - 1]).contains("but its section table needs"));
    }

    /// A file written out of order has holes; the one over the info is named.
    #[test]
    fn hole_is_refused() {
        let mut bytes = compiled(SOUND, &[]);
        let at = bytes.windows(8).position(|window| window == abi::WSH_MAGIC).unwrap();
        bytes[at..at + 128].fill(0);
        assert_eq!(
            refusal(&bytes),
            "`wsh_handler_info` is all zeros: the file has a hole, it is still being written?"
        );
        let mut bytes = compiled(SOUND, &[]);
        let half = bytes.len() / 2;
        bytes[half..].fill(0);
        check(&bytes).expect_err("half of it is missing");
    }

    /// A dynamic section without a byte, at the beginning of a segment without one, lies nowhere in the file.
    #[test]
    fn empty_dynamic_section_is_refused() {
        use std::mem::offset_of;

        let mut bytes = compiled(SOUND, &[]);
        let word = |bytes: &[u8], at: usize| usize::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
        let table = word(&bytes, offset_of!(Header, e_phoff));
        let find = |bytes: &[u8], kind: u32| {
            let mut places = (table..).step_by(size_of::<Segment>());
            places.find(|at| u32::from_ne_bytes(*bytes[*at..].first_chunk().unwrap()) == kind).unwrap()
        };
        let (loaded, dynamic) = (find(&bytes, elf::PT_LOAD.0), find(&bytes, elf::PT_DYNAMIC.0));
        let address = bytes[loaded + offset_of!(Segment, p_vaddr)..][..size_of::<usize>()].to_vec();
        bytes[dynamic + offset_of!(Segment, p_vaddr)..][..address.len()].copy_from_slice(&address);
        bytes[dynamic + offset_of!(Segment, p_memsz)..][..address.len()].fill(0);
        bytes[loaded + offset_of!(Segment, p_filesz)..][..address.len()].fill(0);
        assert_eq!(check(&bytes), Err(CheckError::Malformed("its dynamic section")));
        assert!(never_unload_flags(&bytes).is_empty());
    }

    /// Random damage never makes the check panic, and never makes it read for ever.
    #[test]
    fn damaged_file_never_panics() {
        let sound = [compiled(SOUND, &["-Wl,--hash-style=gnu"]), compiled(SOUND, &["-Wl,--hash-style=sysv"])];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % below
        };
        let (mut accepted, mut refused) = (0, 0);
        for round in 0..20_000 {
            let mut bytes = sound[round % 2].clone();
            // Half of the damage hits the tables at the beginning, where it matters more than in padding.
            let reach = if round % 4 < 2 { 4096 } else { bytes.len() };
            for _ in 0..=random(6) {
                let at = random(reach);
                bytes[at] = match random(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => bytes[at] ^ 1 << random(8),
                    _ => random(256) as u8,
                };
            }
            if round % 16 == 0 {
                let tail = random(bytes.len());
                bytes[tail..].fill(0);
            }
            match check(&bytes) {
                Ok(_) => accepted += 1,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
            }
            never_unload_flags(&bytes);
        }
        // Both outcomes are reached, so the damage is neither too much nor too little.
        assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
    }

    /// A library of whose symbols one is missing, hidden or of the wrong kind is told how to make it.
    #[test]
    fn missing_symbols_are_named() {
        let info = r#"WSH_HANDLER_INFO("x", "1", 0);"#;
        let source = |body: &str| format!("{HEADER}{body}");
        let text = refusal(&compiled("int x;", &[]));
        assert_eq!(
            text,
            "the library does not export `wsh_handler_info`: export_handler!(YourHandler) makes it in Rust, \
             WSH_HANDLER_INFO(...) in C"
        );
        let text = refusal(&compiled(&source(info), &[]));
        assert!(text.starts_with("the library does not export `wsh_handler_entry_v1`: "), "{text}");
        let hidden = format!(
            "{info}\n__attribute__((visibility(\"hidden\"))) int wsh_handler_entry_v1(void) {{ return 0; }}"
        );
        let text = refusal(&compiled(&source(&hidden), &[]));
        assert!(text.starts_with("the library has but does not export `wsh_handler_entry_v1`"), "{text}");
        let used = format!(
            "{info}\nint wsh_handler_entry_v1(void); int y(void) {{ return wsh_handler_entry_v1(); }}"
        );
        let text = refusal(&compiled(&source(&used), &[]));
        assert!(text.starts_with("the library uses but does not define `wsh_handler_entry_v1`"), "{text}");
        let text =
            refusal(&compiled(&source(&format!("{info}\nWSH_EXPORT int wsh_handler_entry_v1 = 1;")), &[]));
        assert!(
            text.starts_with("the library exports something other than a function as `wsh_handler_entry_v1`"),
            "{text}"
        );
        let text = refusal(&compiled("int wsh_handler_info(void) { return 0; }", &[]));
        assert!(
            text.starts_with("the library exports something other than data as `wsh_handler_info`"),
            "{text}"
        );
        let text = refusal(&compiled("char wsh_handler_info[128];", &[]));
        assert!(text.starts_with("the library has only zeros as `wsh_handler_info`"), "{text}");
    }

    /// Another ABI is refused with both numbers, before anything is asked that only this ABI has.
    #[test]
    fn other_abi_is_refused() {
        let text = refusal(&compiled(
            "#include <stdint.h>\nstruct { uint8_t magic[8]; uint32_t size; uint16_t major; } const wsh_handler_info = { { 'W', 'S', \
             'H', 'L', 'I', 'B', '\\r', '\\n' }, 14, 9 };",
            &[],
        ));
        assert_eq!(
            text,
            "the library speaks ABI 9, this server ABI 1: build it with the handler-api of this server"
        );
        let text = refusal(&with_info("MAGIC, 128, 1, 7, 7"));
        assert_eq!(text, "the library needs a server of ABI 1.7 or later, this one has 1.0");
        // A newer minor that can do with this server is welcome, also with a longer info.
        assert_eq!(check(&with_info("MAGIC, 128, 1, 7, 0")).unwrap().abi_minor, 7);
    }

    /// Info that cannot be right is refused field by field.
    #[test]
    fn wrong_info_is_refused() {
        assert!(
            refusal(&with_info("MAGIC, 100, 1"))
                .contains("says that it has 100 bytes, but has 128 in every version")
        );
        assert!(
            refusal(&with_info("MAGIC, 0x7fffffff, 1")).contains("the end of `wsh_handler_info` contradicts")
        );
        assert!(
            refusal(&with_info("MAGIC, 128, 1, 0, 0, 0, WSH_LIBRARY_PANIC_ABORT"))
                .contains("build it with panic = \"unwind\"")
        );
        assert!(
            refusal(&with_info("\"WSHLIB\\n\""))
                .contains("has changed line ends: the file was copied in a text mode")
        );
        assert!(refusal(&with_info("\"libhttpd\"")).contains("does not begin with WSH_MAGIC"));
        let texts = |texts: &str| with_info(&format!("MAGIC, 128, 1, 0, 0, 0, 0, 0, 0, {texts}"));
        assert_eq!(refusal(&texts("\"\\xff\"")), "the name in `wsh_handler_info` is not printable UTF-8");
        assert_eq!(
            refusal(&texts("\"a\", \"\\x1b[31m\"")),
            "the version in `wsh_handler_info` is not printable UTF-8"
        );
        // Without a NUL all 32 bytes are the name.
        assert_eq!(check(&texts("\"01234567890123456789012345678901\"")).unwrap().name.len(), 32);
    }

    /// The wish never to be unloaded is found where the loader reads it.
    #[test]
    fn never_unload_flag_is_found() {
        assert!(never_unload_flags(&compiled(SOUND, &[])).is_empty());
        let mut bytes = compiled(SOUND, &["-Wl,-z,nodelete", "-Wl,-z,now"]);
        let places = never_unload_flags(&bytes);
        let [(at, value)] = places.as_slice() else { panic!("{places:?}") };
        assert_ne!(value.iter().max(), Some(&0), "the other flags stay");
        bytes[*at..*at + value.len()].copy_from_slice(value);
        assert!(never_unload_flags(&bytes).is_empty());
        check(&bytes).unwrap();
    }
}
