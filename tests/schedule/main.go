// Writes golden.txt: what github.com/robfig/cron/v3, which Kubernetes' CronJob controller asks, says of random schedules.
//
//	go run . > golden.txt            10,000 schedules, a digest each
//	go run . '30 2 * * *' [ZONE]     the moments behind the digest of one, to compare
//
// A line is a schedule, a tab, and "refused" or a digest (FNV-1a, 64 bits) over what next() says: in each zone, from each of
// its weeks' starts, moments up to the week's end, at most 16 of them, each as a decimal of seconds since 1970 and a
// newline ("never" where there is none).
package main

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand"
	"os"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Northern and southern, an offset of half an hour, a clock moved by half an hour, midnight that does not exist, none at all.
var zones = []string{
	"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago", "Africa/Cairo",
}

// Two days before each change of those clocks in 2025, and a year's end.
var weeks = []string{
	"2025-03-07T12:00:00Z", "2025-03-28T12:00:00Z", "2025-04-03T12:00:00Z", "2025-04-23T12:00:00Z", "2025-09-05T12:00:00Z",
	"2025-10-03T12:00:00Z", "2025-10-24T12:00:00Z", "2025-10-30T00:00:00Z", "2025-12-30T23:59:30Z",
}

const week = 6 * 24 * time.Hour
const most = 16

// From each moment this long is skipped, so that few of them cross every hour of a week sooner or later.
const step = 9*time.Hour + 17*time.Minute + 13*time.Second

func moments(s cron.Schedule, zone *time.Location, out io.Writer) {
	for _, start := range weeks {
		from, err := time.Parse(time.RFC3339, start)
		if err != nil {
			panic(err)
		}
		at, end := from.In(zone), from.Add(week)
		for i := 0; i < most; i++ {
			due := s.Next(at)
			if due.IsZero() {
				fmt.Fprintln(out, "never")
				break
			}
			fmt.Fprintln(out, due.Unix())
			if due.After(end) {
				break
			}
			at = due.Add(step)
		}
	}
}

func digest(text string) string {
	s, err := cron.ParseStandard(text)
	if err != nil {
		return "refused"
	}
	h := fnv.New64a()
	for _, name := range zones {
		moments(s, zone(name), h)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

func zone(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return zone
}

var months = strings.Split("jan feb mar apr may jun jul aug sep oct nov dec", " ")
var days = strings.Split("sun mon tue wed thu fri sat", " ")

// One part of a field; now and then one that is out of bounds or otherwise wrong.
func part(r *rand.Rand, least, most int, names []string) string {
	value := func(n int) string {
		if names != nil && r.Intn(4) == 0 && n-least >= 0 && n-least < len(names) {
			name := names[n-least]
			if r.Intn(3) == 0 {
				name = strings.ToUpper(name)
			}
			return name
		}
		if r.Intn(40) == 0 {
			return fmt.Sprintf("%03d", n)
		}
		return fmt.Sprint(n)
	}
	any := func() int {
		if r.Intn(150) == 0 {
			return most + 1 + r.Intn(2)
		}
		return least + r.Intn(most-least+1)
	}
	var text string
	switch r.Intn(10) {
	case 0, 1, 2:
		text = "*"
	case 3:
		text = "?"
	case 4, 5:
		a, b := any(), any()
		if a > b && r.Intn(30) > 0 {
			a, b = b, a
		}
		text = value(a) + "-" + value(b)
	default:
		text = value(any())
	}
	switch r.Intn(8) {
	case 0:
		text += fmt.Sprintf("/%d", 1+r.Intn(most))
	case 1:
		if r.Intn(40) == 0 {
			text += []string{"/0", "/", "/x", "/2/2", "-1", "-", "x"}[r.Intn(7)]
		}
	}
	return text
}

func field(r *rand.Rand, star int, least, most int, names []string) string {
	if r.Intn(100) < star {
		return "*"
	}
	parts := []string{part(r, least, most, names)}
	for r.Intn(4) == 0 {
		parts = append(parts, part(r, least, most, names))
	}
	text := strings.Join(parts, ",")
	if r.Intn(300) == 0 {
		text += ","
	}
	return text
}

func schedule(r *rand.Rand) string {
	text := strings.Join([]string{
		field(r, 5, 0, 59, nil), field(r, 30, 0, 23, nil), field(r, 50, 1, 31, nil),
		field(r, 60, 1, 12, months), field(r, 50, 0, 6, days),
	}, " ")
	if r.Intn(300) == 0 {
		text += " *"
	}
	return text
}

var chosen = []string{
	"* * * * *", "*/5 * * * *", "30 2 * * *", "0 2 * * *", "59 1 * * *", "0 3 * * *", "30 1 * * *", "15,45 0-3 * * *",
	"0 0 * * *", "30 0 * * *", "0 0 1 * *", "0 0 1 */2 *", "0 0 29 2 *", "0 0 30 2 *", "0 0 31 4,6 *", "0 0 13 * 5",
	"0 0 */2 * 5", "0 0 * * 0", "0 24 * * *", "* * * * 7", "*-7 * * * *", "?/1 * * * *", ", * * * *", "+5 * * * *",
	"5/70 * * * *", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", "@Daily", "@reboot",
	"\t0 0  * * *  ", "", " ", "0 0 l * *", "0 0 15w * *", "0 0 * * 5#2", "0 0 * * mon-fri", "0 0 * * sun-sat", "0 0 * * sat-sun",
	"99999999999999999999 * * * *", "*/99999999999999999999 * * * *", "*/4294967297 * * * *", "4294967296 * * * *",
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	if len(os.Args) > 1 {
		s, err := cron.ParseStandard(os.Args[1])
		if err != nil {
			fmt.Fprintln(out, "refused:", err)
			return
		}
		for _, name := range append(os.Args[2:], zones[len(os.Args[2:]):]...) {
			fmt.Fprintln(out, name)
			moments(s, zone(name), out)
		}
		return
	}
	r := rand.New(rand.NewSource(20260901))
	for i := 0; i < 10000; i++ {
		text := schedule(r)
		if i < len(chosen) {
			text = chosen[i]
		}
		fmt.Fprintf(out, "%q\t%s\n", text, digest(text))
	}
}
