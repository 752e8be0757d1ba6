// The lab: govmomi's vCenter simulator behind a front handler of ours, in which
// a powered-on VM is a running QEMU. See ../README.md.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io/ioutil"
	"log"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	log.SetFlags(log.Lmicroseconds)
	o := options{}
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8989", "address and port of the API; port 0 chooses one")
	flag.StringVar(&o.user, "user", "administrator@vsphere.local", "user with the Admin role")
	flag.StringVar(&o.password, "password", "lab", "password of that user")
	flag.StringVar(&o.directory, "directory", "/var/tmp/mooring-lab", "where runs keep datastores and sockets")
	flag.StringVar(&o.apiVersion, "api-version", "6.7", "API version that clients negotiate")
	flag.IntVar(&o.datastores, "datastores", 2, "number of datastores")
	flag.IntVar(&o.portgroups, "portgroups", 3, "number of distributed port groups")
	flag.BoolVar(&o.qemu, "qemu", true, "boot a QEMU for every VM that is powered on")
	verbose := flag.Bool("verbose", false, "log every call")
	flag.Parse()
	o.trace = *verbose

	if err := serve(o); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func serve(o options) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if !o.trace {
		log.SetOutput(ioutil.Discard) // the library logs every update; our own words go through l.logf
	}
	l, err := newLab(o)
	if err != nil {
		return err
	}
	defer l.close()
	described := l.description()
	ready, err := json.Marshal(described)
	if err != nil {
		return err
	}
	fmt.Println(string(ready))
	l.logf("%s/sdk, user %s, password %s; end with Ctrl-C", described["url"], o.user, o.password)
	<-stop
	return nil
}
