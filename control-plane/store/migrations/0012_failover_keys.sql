CREATE TABLE "cellfleet_control"."failover_key" (
	"failover" text NOT NULL,
	"key" text NOT NULL,
	"fate" text NOT NULL,
	"target" text,
	"wave" integer NOT NULL,
	"epoch" bigint NOT NULL,
	"reason" text DEFAULT '' NOT NULL,
	"at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "failover_key_failover_key_pk" PRIMARY KEY("failover","key")
);
--> statement-breakpoint
CREATE INDEX "failover_key_key" ON "cellfleet_control"."failover_key" USING btree ("key");