package logstore

var kinds = []Kind{Pebble, Bolt}
