// Streams of C++ on names below one directory, as file back ends of engines use them: written, renamed while open, read from the middle; and the
// standard library's own calls on names. Run by test_b_preload.py; exits with the line that does not hold.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace fs = std::filesystem;

#define CHECK(x)	do { if (!(x)) { std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #x); return 1; } } while (0)

// LMCache's own file back end: descriptors, in a loop until all is done, renamed, removed by remove().
static bool
native(const std::string &name, const std::string &body)
{
	std::string back(body.size(), '\0');
	struct statvfs room;
	struct stat st;
	size_t at = 0;
	ssize_t r;
	int fd = open((name + ".tmp").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0644);

	while (at < body.size() && (r = write(fd, body.data() + at, std::min<size_t>(body.size() - at, 1234567))) > 0)
		at += static_cast<size_t>(r);
	if (at != body.size() || close(fd) != 0 || rename((name + ".tmp").c_str(), name.c_str()) != 0 || stat(name.c_str(), &st) != 0)
		return false;
	fd = open(name.c_str(), O_RDONLY);
	for (at = 0; (r = read(fd, &back[at], back.size() - at)) > 0; at += static_cast<size_t>(r))
		;
	return close(fd) == 0 && static_cast<size_t>(st.st_size) == body.size() && back == body && statvfs(name.c_str(), &room) == 0 && room.f_blocks > 0 &&
	    remove(name.c_str()) == 0 && stat(name.c_str(), &st) == -1 && errno == ENOENT;
}

int
main(int argc, char **argv)
{
	CHECK(argc == 2);
	const std::string top = std::string(argv[1]) + "/00a/1f_g0";
	std::string body(3000017, '\0');

	for (size_t i = 0; i < body.size(); i++)
		body[i] = static_cast<char>(i * 7 + i / 255);
	CHECK(fs::create_directories(top));
	{
		std::ofstream out(top + "/x.tmp", std::ios::binary);

		out.write(body.data(), static_cast<std::streamsize>(body.size()));
		out.flush();
		CHECK(std::rename((top + "/x.tmp").c_str(), (top + "/x").c_str()) == 0);
		out.write("tail", 4);
	}
	{
		std::ifstream in(top + "/x", std::ios::binary | std::ios::ate);
		std::string back(2000021, '\0');

		CHECK(static_cast<size_t>(in.tellg()) == body.size() + 4);
		in.seekg(1000000);
		in.read(&back[0], static_cast<std::streamsize>(back.size()));
		CHECK(back == body.substr(1000000) + "tail");
	}
	fs::last_write_time(top + "/x", fs::file_time_type::clock::now());		// that it was used
	CHECK(fs::exists(top + "/x") && fs::file_size(top + "/x") == body.size() + 4 && !fs::exists(top + "/x.tmp"));
	for (const auto &e : fs::directory_iterator(top))
		CHECK(e.path().filename() == "x" && e.is_regular_file());
	fs::copy_file(top + "/x", top + "/y");
	fs::rename(top + "/y", top + "/z");
	CHECK(fs::remove(top + "/x") && !fs::exists(top + "/x") && fs::file_size(top + "/z") == body.size() + 4);
	CHECK(native(top + "/w", body));
	return 0;
}
