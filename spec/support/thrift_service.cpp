// A Thrift server and client of the Calculator (calculator.thrift), by the C++ library.
//
// usage: thrift_service server ENCODING
//        thrift_service client ENCODING HOST:PORT CASE
//
// ENCODING is "binary", "compact" (both framed) or "theader". A server prints "listening on ADDRESS";
// a client prints "CASE ok".
#include "Calculator.h"

#include <thrift/TApplicationException.h>
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/protocol/TCompactProtocol.h>
#include <thrift/protocol/THeaderProtocol.h>
#include <thrift/server/TThreadedServer.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TServerSocket.h>
#include <thrift/transport/TSocket.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <unistd.h>

using namespace apache::thrift;
using namespace apache::thrift::protocol;
using namespace apache::thrift::transport;

static void check(bool holds, const char *what)
{
    if (holds)
        return;
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::exit(1);
}

class Handler : public CalculatorIf {
    std::mutex mutex;
    std::vector<std::string> noted;

  public:
    int32_t add(const int32_t a, const int32_t b) override
    {
        int64_t sum = int64_t(a) + b;
        if (sum <= INT32_MAX)
            return int32_t(sum);
        Overflow error;
        error.why = std::to_string(a) + " and " + std::to_string(b) + " are too many";
        throw error;
    }
    void echo(std::string &out, const std::string &bytes) override { out = bytes; }
    int32_t slow(const int32_t milliseconds) override
    {
        usleep(milliseconds * 1000);
        return milliseconds;
    }
    int32_t broken() override { throw std::runtime_error("internal, as asked"); }
    void note(const std::string &text) override
    {
        std::lock_guard<std::mutex> lock(mutex);
        noted.push_back(text);
    }
    void notes(std::vector<std::string> &out) override
    {
        std::lock_guard<std::mutex> lock(mutex);
        out = noted;
    }
};

static std::shared_ptr<TProtocolFactory> protocols(const std::string &encoding)
{
    if (encoding == "theader")
        return std::make_shared<THeaderProtocolFactory>();
    if (encoding == "compact")
        return std::make_shared<TCompactProtocolFactory>();
    return std::make_shared<TBinaryProtocolFactory>();
}

class Announce : public server::TServerEventHandler {
    std::shared_ptr<TServerSocket> socket;

  public:
    explicit Announce(std::shared_ptr<TServerSocket> of) : socket(std::move(of)) {}
    void preServe() override
    {
        std::printf("listening on 127.0.0.1:%d\n", socket->getPort());
        std::fflush(stdout);
    }
};

static void serve(const std::string &encoding)
{
    auto socket = std::make_shared<TServerSocket>("127.0.0.1", 0);
    std::shared_ptr<TTransportFactory> transports = std::make_shared<TTransportFactory>();
    if (encoding != "theader")
        transports = std::make_shared<TFramedTransportFactory>();
    auto processor = std::make_shared<CalculatorProcessor>(std::make_shared<Handler>());
    server::TThreadedServer server(processor, socket, transports, protocols(encoding));
    server.setServerEventHandler(std::make_shared<Announce>(socket));
    server.serve();
}

static void calls(CalculatorClient &client)
{
    for (int i = 0; i < 50; i++)
        check(client.add(i, 1) == i + 1, "add");
    try {
        client.add(INT32_MAX, 1);
        check(false, "an overflow is raised");
    } catch (const Overflow &error) {
        check(error.why == "2147483647 and 1 are too many", "its reason comes back");
    }
    try {
        client.broken();
        check(false, "an exception is raised");
    } catch (const TApplicationException &error) {
        check(error.getType() == TApplicationException::INTERNAL_ERROR ||
                  error.getType() == TApplicationException::UNKNOWN,
              "its kind comes back");
    }
    check(client.add(1, 1) == 2, "the connection goes on");
}

static void large(CalculatorClient &client)
{
    for (size_t size : {0, 1, 65000, 66000, 1 << 20, 3 << 20}) {
        std::string data(size, 'x'), back;
        for (size_t i = 0; i < size; i++)
            data[i] = char(i * 7);
        client.echo(back, data);
        check(back == data, "echo");
    }
}

static void oneway(CalculatorClient &client)
{
    std::string text = "noted by " + std::to_string(getpid());
    client.note(text);
    check(client.add(1, 2) == 3, "add");
    for (int i = 0; i < 1000; i++) {
        std::vector<std::string> noted;
        client.notes(noted);
        for (const std::string &one : noted)
            if (one == text)
                return;
        usleep(10000);
    }
    check(false, "the note was taken");
}

static void timeout(CalculatorClient &client)
{
    try {
        client.slow(20000);
        check(false, "an exception is raised");
    } catch (const TApplicationException &error) {
        check(error.getType() == TApplicationException::INTERNAL_ERROR, "its kind comes back");
        check(std::string(error.what()).find("Gateway Timeout") != std::string::npos, "so does why");
    }
    check(client.add(1, 2) == 3, "the connection goes on");
}

/* What a client needs; its transport is open. */
static std::unique_ptr<CalculatorClient> connect(const std::string &encoding,
                                                 const std::string &address)
{
    size_t colon = address.rfind(':');
    auto socket = std::make_shared<TSocket>(address.substr(0, colon),
                                            std::atoi(address.c_str() + colon + 1));
    std::shared_ptr<TTransport> transport = socket;
    if (encoding != "theader")
        transport = std::make_shared<TFramedTransport>(socket);
    socket->setRecvTimeout(20000);
    transport->open();
    return std::make_unique<CalculatorClient>(protocols(encoding)->getProtocol(transport));
}

static void concurrent(const std::string &encoding, const std::string &address)
{
    std::vector<std::thread> threads;
    for (int number = 0; number < 20; number++)
        threads.emplace_back([=] {
            auto client = connect(encoding, address);
            std::string data(2000 + number, char('a' + number)), back;
            for (int i = 0; i < 30; i++) {
                check(client->add(number * 1000, i) == number * 1000 + i, "add");
                if (i % 10 == number % 10) {
                    client->echo(back, data);
                    check(back == data, "echo");
                }
            }
        });
    for (std::thread &thread : threads)
        thread.join();
}

int main(int argc, char **argv)
{
    std::string role = argc > 2 ? argv[1] : "", encoding = argc > 2 ? argv[2] : "";
    if (role == "server") {
        serve(encoding);
        return 0;
    }
    check(role == "client" && argc == 5, "the usage");
    std::string address = argv[3], which = argv[4];
    auto client = connect(encoding, address);
    if (which == "calls")
        calls(*client);
    else if (which == "large")
        large(*client);
    else if (which == "timeout")
        timeout(*client);
    else if (which == "concurrent")
        concurrent(encoding, address);
    else
        oneway(*client);
    std::printf("%s ok\n", which.c_str());
    return 0;
}
